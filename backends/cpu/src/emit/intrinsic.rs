//! Calls of assembled micro-kernels, where a statement names one.

use aic_ir::machine::{Target, zeroed_contraction};
use aic_ir::tile::{Stmt, StmtData, StmtOp};
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{AbiParam, ExtFuncData, ExternalName, InstBuilder, Signature, UserExternalName};

use super::kernel::Emitter;
use crate::microkernel;
use crate::target::INTERNAL_CONVENTION;

impl Emitter<'_, '_> {
    /// Executes a statement's whole tile by the intrinsic that it names.
    pub(super) fn intrinsic(&mut self, s: Stmt, stmt: &StmtData, name: &str) -> Result<(), String> {
        let missing = || format!("`{}` names the intrinsic `{name}`, which this target does not have", stmt.name);
        let intrinsic = self.target.intrinsics().iter().find(|i| i.name == name).ok_or_else(missing)?;
        let width = microkernel::width(name).ok_or_else(missing)?;
        let (program, kernel) = (self.program, self.kernel);
        if let StmtOp::Map { .. } = stmt.op {
            // The contraction after it starts from zero.
            return zeroed_contraction(program, kernel, s).map(|_| ());
        }
        let mut tile = intrinsic.tile(program, kernel, stmt)?;
        tile.from_zero = kernel.stmts_in_order().into_iter().any(|zero| {
            kernel.stmts[zero].intrinsic.as_deref() == Some(name)
                && zeroed_contraction(program, kernel, zero).is_ok_and(|sum| sum == s)
        });
        let [left, right] = if tile.exchanged { [2, 1] } else { [1, 2] };
        let callee = self.table.gemm(name, width, tile)?;

        let mut pointers = Vec::with_capacity(3);
        for access in [0, left, right] {
            let operand = self.operand(s, access);
            let origin = vec![0; stmt.dims.len()];
            pointers.push(self.element_pointer(&operand, &origin)?);
        }
        let b = &mut self.b;
        let function = *self.callees.entry(callee).or_insert_with(|| {
            let mut signature = Signature::new(INTERNAL_CONVENTION);
            signature.params.extend([AbiParam::new(I64); 3]);
            let signature = b.import_signature(signature);
            let name = UserExternalName { namespace: 0, index: callee as u32 };
            let name = ExternalName::user(b.func.declare_imported_user_function(name));
            b.import_function(ExtFuncData { name, signature, colocated: true, patchable: false })
        });
        self.b.ins().call(function, &pointers);
        Ok(())
    }
}
