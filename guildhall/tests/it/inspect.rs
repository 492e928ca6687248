//! `guildhall svid` and `guildhall token`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use ids::{Source, UserId};
use mesh::token::Audience;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Signer, TokenSpec};

use crate::program::{answer, complaint, dev, program};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_dev_shows_who_its_workloads_and_tokens_are() {
    let data = TempDir::new().unwrap();
    let directory = data.path().to_str().unwrap();
    let (_process, dev) = dev(data.path()).await;

    let shown =
        answer(&mut program(&["svid", "--workload", "content", "--audience", "somebody", "--data-dir", directory]));
    let id = "spiffe://guildhall.internal/ns/guildhall/sa/content";
    for line in [&*format!("X.509-SVID {id}"), &*format!("JWT-SVID {id}"), "audience somebody", "EC P-256", " left)"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(!shown.contains("eyJ"), "a JWT-SVID is a secret: {shown}");
    let shown = answer(&mut program(&["svid", "--json", "--data-dir", directory]));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["x509Svids"][0]["id"], "spiffe://guildhall.internal/ns/guildhall/sa/operator");
    assert_eq!(shown["roots"][0]["trustDomain"], "guildhall.internal");
    let left = shown["x509Svids"][0]["secondsLeft"].as_u64().unwrap();
    assert!((1..=600).contains(&left), "{left}");

    let admin = dev.admin.unwrap();
    let login = reqwest::Client::new()
        .post(format!("{}/api/v1/auth/login", dev.http))
        .json(&json!({"email": admin.email, "password": admin.password}))
        .send()
        .await
        .unwrap();
    let login: Value = login.error_for_status().unwrap().json().await.unwrap();
    let token = login["accessToken"].as_str().unwrap();
    let shown = answer(&mut program(&["token", token, "--data-dir", directory]));
    assert!(shown.contains("valid: signed by http://localhost:") && shown.contains("roles      "), "{shown}");
    assert!(!shown.contains(token));
}

#[test]
fn a_socket_where_nobody_answers_is_named() {
    let home = TempDir::new().unwrap();
    let socket = format!("unix:{}", home.path().join("nobody.sock").display());
    let said = complaint(&mut program(&["svid", "--socket", &socket]));
    assert!(said.contains(&format!("nobody answers at {socket}")), "{said}");
    let said = complaint(&mut program(&["svid", "--socket", "elsewhere"]));
    assert!(said.contains("elsewhere"), "{said}");
    let said = complaint(&mut program(&["svid", "--data-dir", home.path().to_str().unwrap()]));
    assert!(said.contains("--socket unix:PATH"), "{said}");
}

/// An authorization server: its metadata and its keys, for as long as the test runs. Answers its address.
fn issuer(jwks: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let metadata = json!({"issuer": address, "jwks_uri": format!("{address}/jwks")}).to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap();
            let body = if head[..length].starts_with(b"GET /jwks ") { &jwks } else { &metadata };
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
                .unwrap();
        }
    });
    address
}

#[test]
fn a_token_that_is_not_valid_says_exactly_why_and_is_never_shown() {
    let (signer, source) = (Signer::shared(), Source::system());
    let issuer = issuer(signer.jwks());
    let good = {
        let mut claims = TokenSpec::member(source.id::<UserId>()).claims(&source);
        claims.iss.clone_from(&issuer);
        claims
    };
    let check = |token: &str| {
        let mut command = program(&["token", "-", "--json", "--issuer", &issuer]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let (shown, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let signature = token.rsplit('.').next().unwrap();
        assert!(!shown.contains(signature) && !said.contains(signature), "{shown}{said}");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["valid"], output.status.success());
        assert_eq!(shown["claims"]["sub"], good.sub);
        shown["reason"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(check(&signer.sign(&good)), "");

    let mut changed = good.clone();
    changed.exp = (source.now() - Duration::from_mins(1)).seconds();
    assert!(check(&signer.sign(&changed)).starts_with("it has expired at 20"));
    changed = good.clone();
    changed.iss = "https://elsewhere.example.org".to_owned();
    let why = check(&signer.sign(&changed));
    assert!(why.starts_with("another issuer") && why.contains("elsewhere") && why.contains(&issuer), "{why}");
    changed = good.clone();
    changed.aud = Audience::One("another".to_owned());
    let why = check(&signer.sign(&changed));
    assert!(why.starts_with("another audience") && why.contains("aud another"), "{why}");
    assert!(check(&Signer::generate().sign(&good)).starts_with("InvalidSignature"));
    let raw = |header: Value| signer.sign_raw(&header, &serde_json::to_value(&good).unwrap());
    let why = check(&raw(json!({"typ": "JWT", "alg": "RS256", "kid": "test"})));
    assert!(why.starts_with("the type is not at+jwt") && why.contains("typ JWT"), "{why}");
    let why = check(&raw(json!({"typ": "at+jwt", "alg": "RS256", "kid": "gone"})));
    assert!(why.starts_with("unknown kid") && why.contains("kid gone"), "{why}");
}

#[test]
fn the_issuer_is_the_one_that_was_named_wherever_it_is_asked() {
    let (signer, source) = (Signer::shared(), Source::system());
    let elsewhere = issuer(signer.jwks());
    let token = signer.sign(&TokenSpec::member(source.id::<UserId>()).claims(&source));
    let named = "https://play.example.org";
    let said = complaint(&mut program(&["token", &token, "--issuer", named, "--server", &elsewhere]));
    assert!(said.contains(&format!("says that it is the issuer {elsewhere}, not {named}")), "{said}");
    let said = complaint(&mut program(&["token", &token, "--issuer", named]));
    assert!(said.contains("--server URL"), "{said}");
}

#[test]
fn what_is_no_token_is_not_repeated() {
    let home = TempDir::new().unwrap();
    let data = home.path().to_str().unwrap();
    for secret in ["s3cret", "s3cret.s3cret.s3cret", "eyJh.s3cret!.s3cret"] {
        let said = complaint(&mut program(&["token", secret, "--data-dir", data]));
        assert!(!said.contains("s3cret"), "{said}");
    }
}
