//! Calling linked x86-64 code of any platform in this process.

#![allow(unsafe_code, reason = "generated code can only be called through its address")]

use std::arch::asm;

use memmap2::MmapMut;

/// A calling convention of x86-64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Convention {
    /// Everywhere but on Windows.
    SystemV,
    /// Windows.
    Windows,
}

/// A block as callers have to align it.
fn block(bytes: u64) -> (Vec<u8>, usize) {
    let memory = vec![0u8; bytes as usize + 64];
    let start = memory.as_ptr().align_offset(64);
    (memory, start)
}

/// Runs the function `NAME_run(inputs, outputs, arena)` at `offset` of an image; gives its status and the outputs.
pub fn run(
    image: &[u8],
    offset: usize,
    convention: Convention,
    arena_bytes: u64,
    inputs: &[&[u8]],
    output_bytes: &[u64],
) -> (i32, Vec<Vec<u8>>) {
    let mut code = MmapMut::map_anon(image.len()).unwrap();
    code.copy_from_slice(image);
    let code = code.make_exec().unwrap();
    let ins: Vec<(Vec<u8>, usize)> = inputs
        .iter()
        .map(|input| {
            let (mut memory, start) = block(input.len() as u64);
            memory[start..start + input.len()].copy_from_slice(input);
            (memory, start)
        })
        .collect();
    let mut outs: Vec<(Vec<u8>, usize)> = output_bytes.iter().map(|&n| block(n)).collect();
    let (mut arena, arena_start) = block(arena_bytes);
    let in_pointers: Vec<*const u8> = ins.iter().map(|(m, start)| m[*start..].as_ptr()).collect();
    let out_pointers: Vec<*mut u8> = outs.iter_mut().map(|(m, start)| m[*start..].as_mut_ptr()).collect();
    let arguments =
        [in_pointers.as_ptr() as usize, out_pointers.as_ptr() as usize, arena[arena_start..].as_mut_ptr() as usize];
    let function = code[offset..].as_ptr() as usize;
    // SAFETY: the image was linked from a model's object, `offset` is its run function's, and the blocks have the sizes
    // and alignments of its interface.
    let status = unsafe {
        match convention {
            Convention::SystemV => {
                let function: extern "sysv64" fn(usize, usize, usize) -> i32 = std::mem::transmute(function);
                function(arguments[0], arguments[1], arguments[2])
            }
            Convention::Windows => call_windows(function, arguments),
        }
    };
    let outputs = outs.iter().zip(output_bytes).map(|((m, start), &n)| m[*start..*start + n as usize].to_vec());
    (status, outputs.collect())
}

/// Calls a function in the Windows convention, and checks that it keeps what System V functions do not keep.
///
/// # Safety
/// `function` is the address of a function of three words in that convention.
unsafe fn call_windows(function: usize, [a, b, c]: [usize; 3]) -> i32 {
    let (mut status, mut rdi, mut rsi): (usize, usize, usize) = (function, 0x1111, 0x2222);
    let mut xmm: [f64; 10] = std::array::from_fn(|i| i as f64 + 0.5);
    // SAFETY: the caller's, and every register that the convention lets change is named.
    unsafe {
        asm!(
            "sub rsp, 32",
            "call rax",
            "add rsp, 32",
            inout("rax") status,
            inout("rdi") rdi,
            inout("rsi") rsi,
            inout("rcx") a => _,
            inout("rdx") b => _,
            inout("r8") c => _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            out("xmm0") _,
            out("xmm1") _,
            out("xmm2") _,
            out("xmm3") _,
            out("xmm4") _,
            out("xmm5") _,
            inout("xmm6") xmm[0],
            inout("xmm7") xmm[1],
            inout("xmm8") xmm[2],
            inout("xmm9") xmm[3],
            inout("xmm10") xmm[4],
            inout("xmm11") xmm[5],
            inout("xmm12") xmm[6],
            inout("xmm13") xmm[7],
            inout("xmm14") xmm[8],
            inout("xmm15") xmm[9],
        );
    }
    assert_eq!((rdi, rsi), (0x1111, 0x2222));
    assert_eq!(xmm, std::array::from_fn(|i| i as f64 + 0.5));
    status as i32
}
