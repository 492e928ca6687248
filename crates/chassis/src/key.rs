//! The secret that all others of a process come from.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::hkdf;
use ids::Source;
use zeroize::Zeroizing;

/// Length of the key, in bytes.
const LENGTH: usize = 32;

/// The secret from which a process derives all others, from a file or the environment. It is never in a database, never
/// logged, and wiped from memory when the last copy goes.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; LENGTH]>);

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("the master key file {} cannot be used", path.display())]
    File { path: PathBuf, source: io::Error },
    /// Others than the owner may read or write the file.
    #[error("the master key file {} is open to others (mode {mode:o}): run `chmod 600` on it", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// Not 64 hexadecimal digits.
    #[error("a master key is 64 hexadecimal digits")]
    Malformed,
}

impl MasterKey {
    /// Reads a key of 64 hexadecimal digits from a file that its owner alone may read.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let mode = mode(&fs::metadata(path).map_err(failed)?);
        if mode & 0o077 != 0 {
            return Err(Error::Exposed { path: path.to_owned(), mode });
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        Self::from_hex(text.trim())
    }

    /// Makes a key and writes it to a new file with mode 0600; a file that is there is not touched and an error. The file
    /// appears whole or not at all: half a key, left by a crash, would lock everybody out.
    pub fn create(path: &Path, source: &Source) -> Result<Self, Error> {
        let key = Self(Zeroizing::new(source.bytes()));
        key.write(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Ok(key)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let unfinished = path.with_added_extension("new");
        if let Err(error) = fs::remove_file(&unfinished)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = new_private_file(&unfinished)?;
        self.0.iter().try_for_each(|byte| write!(file, "{byte:02x}"))?;
        writeln!(file)?;
        file.sync_all()?;
        fs::hard_link(&unfinished, path)?;
        fs::remove_file(&unfinished)
    }

    /// A key from 64 hexadecimal digits, for instance from an environment variable.
    pub fn from_hex(text: &str) -> Result<Self, Error> {
        if text.len() != 2 * LENGTH || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Error::Malformed);
        }
        let mut key = Zeroizing::new([0; LENGTH]);
        for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| Error::Malformed)?;
        }
        Ok(Self(key))
    }

    /// The secret for one purpose (HKDF-SHA-256, RFC 5869, without salt; `purpose` is its info): `auth.page-tokens`, for
    /// instance. Secrets of different purposes tell nothing about one another.
    pub fn derive(&self, purpose: &str) -> [u8; LENGTH] {
        let mut secret = [0; LENGTH];
        hkdf_sha256(self.0.as_slice(), purpose.as_bytes(), &mut secret);
        secret
    }
}

fn hkdf_sha256(material: &[u8], info: &[u8], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(material)
        .expand(&[info], Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("HKDF gives up to 255 hashes of output, and we ask for fewer than three");
}

#[cfg(unix)]
fn mode(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o7777
}

#[cfg(unix)]
fn new_private_file(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::hkdf_sha256;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn derivation_gives_the_output_of_rfc_5869_test_case_3() {
        let mut out = [0; 42];
        hkdf_sha256(&[0x0b; 22], b"", &mut out);
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
        assert_eq!(out.as_slice(), bytes(expected));
    }
}
