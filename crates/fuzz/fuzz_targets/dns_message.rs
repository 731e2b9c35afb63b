//! A DNS message that parses is written again within the limit; what comes from an uplink's server is an answer to
//! the question that went out, or nothing; a stream is cut into the messages that it was made of.
#![no_main]
use libfuzzer_sys::fuzz_target;
use names::stream::{Frames, framed};
use names::upstream;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = names::wire::parse(bytes) {
        let _ = names::wire::emit(&message, 9000, false);
    }
    // The first half is a client's question, the second what a server says.
    let (query, answer) = bytes.split_at(bytes.len() / 2);
    if let Some(reply) = upstream::answer_to(query, [7, 8], answer) {
        assert!(reply.len() == answer.len() && reply.starts_with(&query[..2]));
    }
    if let Some(failed) = upstream::failed(query) {
        assert!(failed.len() <= query.len() && failed.starts_with(&query[..2]) && failed[3] & 15 == 2);
    }
    // A stream of them, and bytes that may be none.
    let mut frames = Frames::new(4096);
    let whole: Vec<u8> = [query, answer].into_iter().filter_map(framed).flatten().collect();
    let mut found = Vec::new();
    for part in whole.chunks(1 + query.len() % 7) {
        frames.push(part);
        while let Ok(Some(message)) = frames.take() {
            found.push(message);
        }
    }
    if bytes.len() < 8192 {
        assert!(found == [query, answer]);
    }
    frames.push(bytes);
    while let Ok(Some(message)) = frames.take() {
        assert!(message.len() <= 4096);
    }
});
