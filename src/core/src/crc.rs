//! CRC-32C (Castagnoli, RFC 3720 appendix B.4), eight bytes a step over tables computed at build time.

const POLY: u32 = 0x82F6_3B78;

const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut t = [[0u32; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLY } else { crc >> 1 };
            bit += 1;
        }
        t[0][i] = crc;
        i += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut i = 0;
        while i < 256 {
            let before = t[k - 1][i];
            t[k][i] = (before >> 8) ^ t[0][(before & 0xff) as usize];
            i += 1;
        }
        k += 1;
    }
    t
}

/// A running checksum.
#[derive(Debug, Clone, Copy)]
pub struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self(!0)
    }
}

impl Crc32c {
    /// Adds `bytes`.
    #[must_use]
    pub fn update(self, bytes: &[u8]) -> Self {
        let mut crc = self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        for w in words {
            let low = crc ^ u32::from_le_bytes([w[0], w[1], w[2], w[3]]);
            let at = |table: usize, byte: u32| TABLES[table][(byte & 0xff) as usize];
            crc = at(7, low) ^ at(6, low >> 8) ^ at(5, low >> 16) ^ at(4, low >> 24);
            crc ^= at(3, u32::from(w[4])) ^ at(2, u32::from(w[5])) ^ at(1, u32::from(w[6])) ^ at(0, u32::from(w[7]));
        }
        for &b in rest {
            crc = (crc >> 8) ^ TABLES[0][((crc ^ u32::from(b)) & 0xff) as usize];
        }
        Self(crc)
    }

    /// The checksum of all that was added.
    #[must_use]
    pub fn value(self) -> u32 {
        !self.0
    }
}

/// Checksum of one text.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    Crc32c::default().update(bytes).value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn test_vectors_of_rfc_3720() {
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xff; 32]), 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46DD_794E);
    }

    #[test]
    fn split_anywhere_is_the_same() {
        let text: Vec<u8> = (0..=255).collect();
        for cut in 0..text.len() {
            assert_eq!(Crc32c::default().update(&text[..cut]).update(&text[cut..]).value(), crc32c(&text));
        }
    }
}
