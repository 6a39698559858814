//! Buffers in registers.
//!
//! Each is a set of Cranelift variables: one for each vector of four elements if statements access it by whole vectors, else
//! one for each element. Indices are constants once unrolled loops are, so every element is a fixed variable.

use aic_ir::tile::{Affine, Atom, Buffer, Space, Stmt, Storage, Var};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::Variable;

use super::kernel::Emitter;
use super::types::{LANES, is_extended, scalar_type, vector_type};
use super::vectorize::vector_dim;

/// The variables of a buffer.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    /// Whether a variable holds [`LANES`] elements.
    wide: bool,
    variables: Vec<Variable>,
}

impl Emitter<'_, '_> {
    /// Declares the variables of every buffer in registers that the statements touch.
    pub(super) fn declare_registers(&mut self, stmts: &[Stmt]) -> Result<(), String> {
        for buffer in self.kernel.buffers() {
            let data = &self.program.buffers[buffer];
            if !matches!(data.storage, Storage::Local(Space::Reg)) {
                continue;
            }
            let elems = data.layout.elems();
            if elems > super::legal::MAX_REGISTER_ELEMS {
                return Err(format!("`{}` has {elems} elements, too many for registers", data.name));
            }
            let wide = self.is_wide(buffer, stmts);
            let (ty, count) = if wide {
                (vector_type(data.dtype).ok_or("no vectors of this element type")?, elems / LANES as u64)
            } else {
                (scalar_type(data.dtype), elems)
            };
            let variables = (0..count).map(|_| self.b.declare_var(ty)).collect();
            self.registers.insert(buffer, Registers { wide, variables });
        }
        Ok(())
    }

    /// Whether some statement accesses the buffer by vectors, and all that do find each vector in one variable.
    fn is_wide(&self, buffer: Buffer, stmts: &[Stmt]) -> bool {
        let data = &self.program.buffers[buffer];
        if !data.layout.elems().is_multiple_of(LANES as u64)
            || vector_type(data.dtype).is_none()
            || is_extended(data.dtype)
        {
            return false;
        }
        let mut by_vectors = false;
        for &s in stmts {
            let stmt = &self.kernel.stmts[s];
            let Some(v) = vector_dim(self.program, stmt) else { continue };
            for (access, offset) in stmt.accesses().iter().zip(&self.offsets[&s]) {
                let var = Var::Dim(v as u32);
                if access.buffer != buffer || !offset.uses(var) {
                    continue;
                }
                let rest = offset.sub(&Affine::var(var));
                let aligned = |(atom, c): &(Atom, i64)| match atom {
                    Atom::Var(_) => c % LANES as i64 == 0,
                    Atom::FloorDiv(..) | Atom::Mod(..) => false,
                };
                if rest.uses(var) || !rest.terms().iter().all(aligned) || rest.constant_part() % LANES as i64 != 0 {
                    return false;
                }
                by_vectors = true;
            }
        }
        by_vectors
    }

    /// Reads one element in registers.
    pub(super) fn register_element(&mut self, registers: &Registers, offset: i64) -> Result<Value, String> {
        let at = usize::try_from(offset).map_err(|_| "a negative register")?;
        let (slot, lane) = if registers.wide { (at / LANES, at % LANES) } else { (at, 0) };
        let value = self.b.use_var(*registers.variables.get(slot).ok_or("a register that does not exist")?);
        Ok(if registers.wide { self.b.ins().extractlane(value, lane as u8) } else { value })
    }

    /// Reads an aligned vector, if variables hold vectors.
    pub(super) fn register_vector(&mut self, registers: &Registers, offset: i64) -> Result<Option<Value>, String> {
        let at = usize::try_from(offset).map_err(|_| "a negative register")?;
        if !registers.wide || at % LANES != 0 {
            return Ok(None);
        }
        let variable = *registers.variables.get(at / LANES).ok_or("a register that does not exist")?;
        Ok(Some(self.b.use_var(variable)))
    }

    /// Writes one element in registers.
    pub(super) fn set_register(&mut self, registers: &Registers, offset: i64, value: Value) -> Result<(), String> {
        let at = usize::try_from(offset).map_err(|_| "a negative register")?;
        let slot = if registers.wide { at / LANES } else { at };
        let variable = *registers.variables.get(slot).ok_or("a register that does not exist")?;
        let value = if registers.wide {
            let old = self.b.use_var(variable);
            self.b.ins().insertlane(old, value, (at % LANES) as u8)
        } else {
            value
        };
        self.b.def_var(variable, value);
        Ok(())
    }

    /// Writes an aligned vector; `false` if variables hold single elements.
    pub(super) fn set_register_vector(
        &mut self,
        registers: &Registers,
        offset: i64,
        value: Value,
    ) -> Result<bool, String> {
        let at = usize::try_from(offset).map_err(|_| "a negative register")?;
        if !registers.wide || at % LANES != 0 {
            return Ok(false);
        }
        let variable = *registers.variables.get(at / LANES).ok_or("a register that does not exist")?;
        self.b.def_var(variable, value);
        Ok(true)
    }
}
