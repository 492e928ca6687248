use contracts::auth::v1::{LoginRequest, LoginResponse, User};

#[test]
fn the_debug_text_of_a_message_keeps_its_secrets() {
    let request = LoginRequest { email: "a@b.example".to_owned(), password: "hunter2".to_owned() };
    let text = format!("{request:?} {request:#?}");
    assert!(!text.contains("hunter2") && !text.contains("a@b.example"), "{text}");
    assert!(text.contains("password: [redacted]"), "{text}");
}

#[test]
fn what_is_no_secret_stays_readable_in_the_debug_text() {
    let response = LoginResponse { access_token: "ey.secret".to_owned(), expires_in: 600, ..Default::default() };
    let text = format!("{response:?}");
    assert!(text.contains("expires_in: 600") && !text.contains("ey.secret"), "{text}");
    let user = User { display_name: "Ada".to_owned(), email: "a@b.example".to_owned(), ..Default::default() };
    assert!(format!("{:?}", vec![user]).contains("Ada"));
}
