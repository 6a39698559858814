//! Status numbers of the C interface, version 1.
//!
//! They are a promise to users (`aic.h`, `docs/abi.md`), so a number never changes its meaning. Kept in one place because
//! generated code returns them, the header declares them, and the JIT turns them back into errors.

/// What a run of a compiled model returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum Status {
    /// The run is complete.
    Ok = 0,
    /// The caller's `aic_io` has a version that the code does not know.
    AbiVersion = 1,
    /// A block that the model needs is a null pointer.
    NullBlock = 2,
    /// A block does not have the alignment that the header states.
    MisalignedBlock = 3,
    /// An index in an input lies outside the table it selects from.
    IndexOutOfRange = 4,
    /// The processor lacks an instruction set that the model was compiled for.
    CpuFeature = 5,
    /// The block of external weights is not the one the model was compiled with.
    Weights = 6,
}

impl Status {
    /// Every status, in order of number.
    pub const ALL: [Status; 7] = [
        Status::Ok,
        Status::AbiVersion,
        Status::NullBlock,
        Status::MisalignedBlock,
        Status::IndexOutOfRange,
        Status::CpuFeature,
        Status::Weights,
    ];

    /// The number.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// The status of that number.
    pub fn from_code(code: i32) -> Option<Status> {
        Status::ALL.into_iter().find(|s| s.code() == code)
    }

    /// The name in `aic.h`.
    pub fn c_name(self) -> &'static str {
        match self {
            Status::Ok => "AIC_OK",
            Status::AbiVersion => "AIC_ERR_ABI_VERSION",
            Status::NullBlock => "AIC_ERR_NULL_BLOCK",
            Status::MisalignedBlock => "AIC_ERR_MISALIGNED_BLOCK",
            Status::IndexOutOfRange => "AIC_ERR_INDEX",
            Status::CpuFeature => "AIC_ERR_CPU_FEATURE",
            Status::Weights => "AIC_ERR_WEIGHTS",
        }
    }

    /// One sentence on what it means.
    pub fn doc(self) -> &'static str {
        match self {
            Status::Ok => "the run is complete",
            Status::AbiVersion => "the version in aic_io is not one that this model knows",
            Status::NullBlock => "a block that the model needs is a null pointer",
            Status::MisalignedBlock => "a block does not have the alignment that the header states",
            Status::IndexOutOfRange => "an index in an input is out of range",
            Status::CpuFeature => "the processor lacks an instruction set that the model was compiled for",
            Status::Weights => "the external weights are not the ones this model was compiled with",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_read_back() {
        for (i, s) in Status::ALL.into_iter().enumerate() {
            assert_eq!(s.code(), i as i32);
            assert_eq!(Status::from_code(s.code()), Some(s));
        }
        assert_eq!(Status::from_code(99), None);
    }
}
