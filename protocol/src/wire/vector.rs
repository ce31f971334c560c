//! Variable-length vectors of RFC 9420, section 2.1.2: a length of 1, 2 or 4 bytes, then the bytes.
//!
//! This module knows no structure; it serves the header that a relay reads, credentials, Welcomes and SignContent.

/// Appends a vector. Longer ones than 2^30 - 1 bytes do not occur: every caller caps its input before.
pub fn push_vector(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        len @ 0..64 => out.push(u8::try_from(len).unwrap_or(0)),
        len @ 64..16384 => out.extend_from_slice(&(u16::try_from(len).unwrap_or(0) | 0x4000).to_be_bytes()),
        len => out.extend_from_slice(&(u32::try_from(len).unwrap_or(0) | 0x8000_0000).to_be_bytes()),
    }
    out.extend_from_slice(bytes);
}

/// Takes a vector from the front; its length must be in the shortest form.
pub fn take_vector<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let first = *rest.first()?;
    let len = match first >> 6 {
        0 => u32::from(take::<1>(rest)?[0] & 0x3f),
        1 => {
            let [a, b] = take::<2>(rest)?;
            let len = u32::from(u16::from_be_bytes([a & 0x3f, b]));
            if len < 64 {
                return None;
            }
            len
        }
        2 => {
            let [a, b, c, d] = take::<4>(rest)?;
            let len = u32::from_be_bytes([a & 0x3f, b, c, d]);
            if len < 16384 {
                return None;
            }
            len
        }
        _ => return None,
    };
    let (head, tail) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = tail;
    Some(head)
}

/// Takes `N` bytes from the front.
pub fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
