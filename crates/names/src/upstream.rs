//! What goes to an uplink's name servers and comes back: the question as the client put it, under an identifier of
//! ours, and nothing but the answer to it (RFC 5452 §9.1).

use alloc::vec::Vec;

/// The message under another identifier.
pub fn with_id(message: &[u8], id: [u8; 2]) -> Vec<u8> {
    let rest = message.get(2..).unwrap_or_default();
    id.iter().chain(rest).copied().collect()
}

/// `answer` under the client's identifier, if it is one to `query` that went out as `id`.
pub fn answer_to(query: &[u8], id: [u8; 2], answer: &[u8]) -> Option<Vec<u8>> {
    let question = query.get(12..question_end(query)?)?;
    let is_response = answer.get(2).is_some_and(|b| b & 0x80 != 0);
    let same = answer.get(12..)?.get(..question.len()).is_some_and(|q| q.eq_ignore_ascii_case(question));
    let client: [u8; 2] = query.get(..2)?.try_into().ok()?;
    (answer.starts_with(&id) && is_response && same).then(|| with_id(answer, client))
}

/// Where the first question ends (RFC 1035 §4.1.2); names in it are not compressed.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match *message.get(at)? {
            0 => return message.get(..at + 5).map(|_| at + 5),
            length if length < 64 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
}

/// `SERVFAIL` to that query (RFC 1035 §4.1.1).
pub fn failed(query: &[u8]) -> Option<Vec<u8>> {
    let mut reply = query.get(..question_end(query)?)?.to_vec();
    let recursion_desired = query.get(2)? & 1;
    let head = [0x80 | recursion_desired, 0x80 | 2, 0, 1, 0, 0, 0, 0, 0, 0];
    reply.iter_mut().skip(2).zip(head).for_each(|(b, h)| *b = h);
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01";

    /// An identifier that is guessed, a question that is another one, a query instead of an answer.
    #[test]
    fn cve_2024_52615_and_52616_only_the_answer_to_our_question_under_our_identifier_counts() {
        let id = [9, 9];
        let mut answer = QUERY.to_vec();
        answer[..3].copy_from_slice(&[9, 9, 0x81]);
        assert_eq!(answer_to(QUERY, id, &answer).unwrap()[..3], [0x12, 0x34, 0x81]);
        for (at, byte) in [(0, 8), (2, 0x01), (13, b'x'), (answer.len() - 1, 3)] {
            let mut other = answer.clone();
            other[at] = byte;
            assert_eq!(answer_to(QUERY, id, &other), None, "byte {at}");
        }
        for cut in 0..answer.len() {
            assert_eq!(answer_to(QUERY, id, &answer[..cut]), None);
        }
    }

    #[test]
    fn a_failure_says_so_with_the_question() {
        let reply = failed(QUERY).unwrap();
        assert_eq!((reply[0], reply[2], reply[3] & 15, &reply[12..]), (0x12, 0x81, 2, &QUERY[12..]));
        for cut in 0..QUERY.len() {
            assert_eq!(failed(&QUERY[..cut]), None);
        }
    }
}
