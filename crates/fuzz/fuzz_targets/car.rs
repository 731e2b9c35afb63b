//! CARs in pieces: the same items and the same error whatever the pieces; what is read is written again.
#![no_main]
use content_id::VerifyError;
use content_id::car::{CarError, CarItem, CarReader, frame, header};
use libfuzzer_sys::fuzz_target;

fn read(file: &[u8], piece: usize) -> (Vec<u8>, Result<(), CarError>) {
    let mut reader = CarReader::new();
    let mut again = Vec::new();
    for mut bytes in file.chunks(piece) {
        loop {
            match reader.push(&mut bytes) {
                Ok(Some(CarItem::Roots(roots))) => again.extend(header(&roots)),
                Ok(Some(CarItem::Block(block))) => {
                    assert_eq!(block.cid.verify(&block.data), Ok(()));
                    again.extend(frame(&block.cid, block.data.len()));
                    again.extend(block.data);
                }
                Ok(Some(CarItem::Unverifiable(cid))) => {
                    assert!(matches!(cid.verify(&[]), Err(VerifyError::UnsupportedHash(_))));
                }
                Ok(None) => break,
                Err(error) => return (again, Err(error)),
            }
        }
        assert!(bytes.is_empty());
    }
    (again, reader.finish())
}

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, file)) = bytes.split_first() else { return };
    let (again, result) = read(file, usize::from(*piece) + 1);
    assert_eq!(read(file, file.len().max(1)), (again.clone(), result));
    if result.is_ok() {
        assert_eq!(read(&again, 1000), (again.clone(), Ok(())));
    }
});
