use std::fs;
use std::os::unix::fs::PermissionsExt;

use chassis::MasterKey;
use chassis::key::Error;
use ids::Source;
use tempfile::TempDir;

#[test]
fn a_created_key_is_readable_by_its_owner_alone_and_reads_back() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("master.key");
    let created = MasterKey::create(&path, &Source::system()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let read = MasterKey::from_file(&path).unwrap();
    assert_eq!(created.derive("a purpose"), read.derive("a purpose"));
}

#[test]
fn half_a_key_that_a_crash_left_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    std::fs::write(directory.path().join("master.key.new"), "0123").unwrap();
    let created = MasterKey::create(&path, &Source::system()).unwrap();
    assert_eq!(created.derive("a purpose"), MasterKey::from_file(&path).unwrap().derive("a purpose"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_key_file_is_never_overwritten() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("master.key");
    let first = MasterKey::create(&path, &Source::system()).unwrap();
    assert!(matches!(MasterKey::create(&path, &Source::system()), Err(Error::File { .. })));
    assert_eq!(first.derive("x"), MasterKey::from_file(&path).unwrap().derive("x"));
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("master.key");
    MasterKey::create(&path, &Source::system()).unwrap();
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(MasterKey::from_file(&path), Err(Error::Exposed { .. })), "{mode:o}");
    }
}

#[test]
fn only_64_hexadecimal_digits_are_a_key() {
    for text in ["", "5e", &"5e".repeat(31), &"5e".repeat(33), &"zz".repeat(32), &"é".repeat(32)] {
        assert!(matches!(MasterKey::from_hex(text), Err(Error::Malformed)), "{text}");
    }
}

#[test]
fn purposes_and_keys_give_different_secrets_and_the_same_ones_the_same() {
    let [one, other] = ["01", "02"].map(|byte| MasterKey::from_hex(&byte.repeat(32)).unwrap());
    assert_eq!(one.derive("auth.seal"), one.clone().derive("auth.seal"));
    assert_ne!(one.derive("auth.seal"), one.derive("auth.page-tokens"));
    assert_ne!(one.derive("auth.seal"), other.derive("auth.seal"));
}
