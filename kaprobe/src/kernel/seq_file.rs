//! Reads the file of a BPF iterator.

use std::fs::File;
use std::io::{ErrorKind, Read as _};

use anyhow::{Result, ensure};

/// How many items are read at once.
const AT_ONCE: usize = 256;

/// Reads what an iterator writes to its end, and calls `see` for each item of `size` bytes.
pub fn read(mut file: File, size: usize, see: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; size * AT_ONCE];
    let mut filled = 0;
    loop {
        let got = match file.read(&mut buffer[filled..]) {
            Ok(got) => got,
            // `bpf_seq_read` gives up after a million items that show nothing, and goes on
            // when it is called again.
            Err(why) if matches!(why.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                continue;
            }
            Err(why) => return Err(why.into()),
        };
        if got == 0 {
            ensure!(filled == 0, "it ended in the middle of an item");
            return Ok(());
        }
        filled += got;
        let whole = filled - filled % size;
        buffer[..whole].chunks_exact(size).try_for_each(&mut *see)?;
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}
