//! The domain stays free of gRPC, SQL and HTTP: the list of its dependencies is the architecture.

const DOMAIN: [(&str, &str); 13] = [
    ("account", include_str!("../../src/account.rs")),
    ("attempt", include_str!("../../src/attempt.rs")),
    ("code", include_str!("../../src/code.rs")),
    ("mail", include_str!("../../src/mail.rs")),
    ("password", include_str!("../../src/password.rs")),
    ("permit", include_str!("../../src/permit.rs")),
    ("profile", include_str!("../../src/profile.rs")),
    ("role", include_str!("../../src/role.rs")),
    ("seal", include_str!("../../src/seal.rs")),
    ("session", include_str!("../../src/session.rs")),
    ("settings", include_str!("../../src/settings.rs")),
    ("signing_key", include_str!("../../src/signing_key.rs")),
    ("token", include_str!("../../src/token.rs")),
];

#[test]
fn domain_modules_import_no_adapter() {
    for (name, text) in DOMAIN {
        for adapter in ["tonic", "sqlx", "axum", "store", "http"] {
            let imported = text.contains(&format!("use {adapter}")) || text.contains(&format!(" {adapter}::"));
            assert!(!imported, "{name} imports {adapter}");
        }
    }
}
