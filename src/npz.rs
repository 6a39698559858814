//! Archives of arrays in numpy's `.npz` format: a zip file with one `.npy` member for each array.
//!
//! Members keep their order and names. What is written is stored uncompressed with a fixed time stamp, so the same arrays
//! give the same bytes; what is read may be deflated, as `numpy.savez_compressed` does.

use std::io::{Cursor, Read, Write};

use aic_ir::types::Tensor;

use crate::npy::{self, NpyError};

/// Largest size of one unpacked member: deflate packs a gigabyte of zeros into a megabyte.
const MAX_MEMBER_BYTES: u64 = 4 << 30;

/// Reads all arrays, in the archive's order; names are those of the members without `.npy`.
///
/// # Errors
/// [`NpyError`] when the archive or one of its arrays is damaged.
pub fn read(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, NpyError> {
    let broken = |e: &dyn std::fmt::Display| NpyError::Archive(e.to_string());
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| broken(&e))?;
    let mut arrays = Vec::with_capacity(archive.len());
    for i in 0..archive.len() {
        let member = archive.by_index(i).map_err(|e| broken(&e))?;
        let name = member.name().map_err(|e| broken(&e))?.into_owned();
        let mut data = Vec::new();
        member.take(MAX_MEMBER_BYTES + 1).read_to_end(&mut data).map_err(|e| broken(&e))?;
        if data.len() as u64 > MAX_MEMBER_BYTES {
            return Err(NpyError::Archive(format!("member `{name}` unpacks to more than 4 GiB")));
        }
        let tensor = npy::read(&data)?;
        arrays.push((name.strip_suffix(".npy").unwrap_or(&name).to_owned(), tensor));
    }
    Ok(arrays)
}

/// Writes arrays in the given order.
///
/// # Errors
/// [`NpyError::Archive`] when two arrays have one name or the archive passes what zip files can hold.
pub fn write(arrays: &[(String, Tensor)]) -> Result<Vec<u8>, NpyError> {
    let broken = |e: &dyn std::fmt::Display| NpyError::Archive(e.to_string());
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default());
    for (name, tensor) in arrays {
        let data = npy::write(tensor);
        let options = options.large_file(data.len() as u64 > u64::from(u32::MAX));
        archive.start_file(format!("{name}.npy"), options).map_err(|e| broken(&e))?;
        archive.write_all(&data).map_err(|e| broken(&e))?;
    }
    Ok(archive.finish().map_err(|e| broken(&e))?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_keep_names_order_and_bytes() {
        let arrays = vec![
            ("z/last:0".to_owned(), Tensor::from_f32([2], &[1.0, 2.0]).expect("fits")),
            ("a".to_owned(), Tensor::from_i64([], &[7]).expect("fits")),
        ];
        let bytes = write(&arrays).expect("writes");
        assert_eq!(read(&bytes), Ok(arrays.clone()));
        assert_eq!(write(&arrays).expect("writes"), bytes);
    }

    #[test]
    fn damaged_archives_are_refused() {
        let bytes = write(&[("a".to_owned(), Tensor::scalar_f32(1.0))]).expect("writes");
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(read(b"").is_err());
    }
}
