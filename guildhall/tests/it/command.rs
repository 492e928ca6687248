use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guildhall::{Credential, DevFile};
use tempfile::TempDir;

use crate::program::{complaint, program};

fn guildhall(arguments: &[&str], data: &Path) -> Command {
    let mut command = program(arguments);
    command.arg("--data-dir").arg(data);
    command
}

#[test]
fn a_setting_that_does_not_exist_is_named_as_it_was_written() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("guildhall.toml");
    fs::write(&file, "[content]\nserver = { lisen = \"127.0.0.1:0\" }\n").unwrap();
    let dev = || guildhall(&["dev", "--http", "127.0.0.1:0"], data.path());
    let said = complaint(dev().arg("--config").arg(&file));
    assert!(said.contains(&format!("\"content.server.lisen\" in the file {}", file.display())), "{said}");
    let said = complaint(dev().env("GUILDHALL__EDGE_GATEWAY__NOPE", "1"));
    assert!(said.contains("\"GUILDHALL__EDGE_GATEWAY__NOPE\" in the environment"), "{said}");
    let said = complaint(dev().env("GUILDHALL__NOBODY__NOPE", "1"));
    assert!(said.contains("GUILDHALL__NOBODY__NOPE"), "{said}");
}

#[tokio::test]
async fn dev_json_is_there_while_it_runs() {
    let data = TempDir::new().unwrap();
    let mut dev = guildhall(&["dev", "--http", "127.0.0.1:0"], data.path());
    dev.env("GUILDHALL__AUTH__SERVER__LISTEN", "127.0.0.1:0").env("GUILDHALL__CONTENT__SERVER__LISTEN", "127.0.0.1:0");
    let mut dev = dev.stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while DevFile::read(data.path()).is_err() {
        assert!(dev.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_mins(1));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(Command::new("kill").args(["-TERM", &dev.id().to_string()]).status().unwrap().success());
    assert!(dev.wait().unwrap().success());
    assert!(DevFile::read(data.path()).is_err());
}

#[test]
fn the_password_of_the_dev_admin_goes_to_no_other_server() {
    let (data, blog) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(blog.path().join("2020-06-10-a.md"), "+++\ntitle = \"A\"\n+++\n").unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let dev = DevFile {
        http: "http://127.0.0.1:1".to_owned(),
        http_admin: String::new(),
        pid: 0,
        trust_domain: String::new(),
        services: [].into(),
        identities: [].into(),
        admin: Some(Credential { email: "admin@guildhall.localhost".to_owned(), password: "secret".to_owned() }),
    };
    dev.write(data.path()).unwrap();
    let server = elsewhere.local_addr().unwrap().to_string();
    let import =
        |server: &str| complaint(guildhall(&["import", "posts", "--server", server], data.path()).arg(blog.path()));
    let said = import(&server);
    assert!(said.contains("--token TOKEN"), "{said}");
    assert!(elsewhere.accept().is_err(), "nobody called");
    let said = import("localhost:1/");
    assert!(said.contains("nothing answers at http://127.0.0.1:1"), "{said}");
}

#[test]
fn a_master_key_is_made_once() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("master.key");
    let path = file.to_str().unwrap();
    assert!(program(&["key", path]).output().unwrap().status.success());
    let key = fs::read(&file).unwrap();
    assert!(chassis::MasterKey::from_file(&file).is_ok());
    let said = complaint(&mut program(&["key", path]));
    assert!(said.contains("no key was made"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), key);
}
