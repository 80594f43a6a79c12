//! Memory of the runtime while a tool floods it. Alone in its process: nothing else may allocate meanwhile.

mod common;

use common::{PATIENCE, bash, run, unique};
use duragent_platform::cancel::Cancel;
use duragent_platform::process::resident_bytes;
use duragent_platform::sandbox::{Exit, Stream};

#[test]
fn memory_stays_flat_and_no_byte_is_lost() {
    const OUT_BYTES: u64 = 400 << 20;
    const ERR_BYTES: u64 = 40 << 20;
    let script = format!("head -c {ERR_BYTES} /dev/zero >&2 & head -c {OUT_BYTES} /dev/zero; wait");
    let before = resident_bytes().unwrap();
    let (mut out, mut err, mut largest, mut peak, mut chunks) = (0u64, 0u64, 0, 0, 0u32);
    let exit = run(&bash(&script, &unique(), PATIENCE * 5), &Cancel::new(), &mut |stream, bytes| {
        *(if stream == Stream::Out { &mut out } else { &mut err }) += bytes.len() as u64;
        largest = largest.max(bytes.len());
        chunks += 1;
        if chunks.is_multiple_of(1024) {
            peak = peak.max(resident_bytes().unwrap());
        }
    })
    .unwrap();
    peak = peak.max(resident_bytes().unwrap());
    assert_eq!((exit, out, err), (Exit::Code(0), OUT_BYTES, ERR_BYTES));
    assert!(largest <= 16 * 1024, "chunk of {largest} bytes");
    assert!(peak < before + (8 << 20), "{before} bytes before, up to {peak} meanwhile");
}
