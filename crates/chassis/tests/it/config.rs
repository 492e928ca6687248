use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use chassis::config::{Overrides, check_sections, load_with};
use serde::Deserialize;
use tempfile::TempDir;

const DEFAULTS: &str = r#"
title = "default"
text = "default"
size = 1

[limit]
window = "5s"
most = 10
"#;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    title: String,
    text: String,
    size: u32,
    limit: Limit,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    #[serde(with = "chassis::config::duration")]
    window: Duration,
    most: u32,
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("guildhall.toml");
    fs::write(&path, text).unwrap();
    (directory, path)
}

fn load(file: Option<&PathBuf>, environment: &[(&str, &str)], flags: &Overrides) -> Result<Config, String> {
    load_with(DEFAULTS, "edge-gateway", file.map(PathBuf::as_path), variables(environment), flags)
        .map_err(|error| error.to_string())
}

#[test]
fn each_source_wins_over_those_before_it_key_by_key() {
    let (_directory, path) = file("[edge-gateway]\ntext = 'file'\nsize = 2\nlimit.window = '2m'\n[auth]\nsize = 99\n");
    let environment = [
        ("GUILDHALL__EDGE_GATEWAY__SIZE", "3"),
        ("GUILDHALL__EDGE_GATEWAY__LIMIT__MOST", "30"),
        ("GUILDHALL__AUTH__SIZE", "98"),
        ("GUILDHALL_HTTP", "127.0.0.1:1"),
    ];
    let flags = Overrides::new().set("limit.most", 40);
    let limit = Limit { window: Duration::from_mins(2), most: 40 };
    let expected = Config { title: "default".to_owned(), text: "file".to_owned(), size: 3, limit };
    assert_eq!(load(Some(&path), &environment, &flags).unwrap(), expected);
}

#[test]
fn an_unknown_key_is_an_error_that_names_it_as_it_was_written_and_where() {
    let (_directory, path) = file("[edge-gateway]\nlimit.mots = 3\n");
    let error = load(Some(&path), &[], &Overrides::new()).unwrap_err();
    let place = format!("\"edge-gateway.limit.mots\" in the file {}", path.display());
    assert!(error.contains("found `mots`") && error.contains(&place), "{error}");

    let error = load(None, &[("GUILDHALL__EDGE_GATEWAY__SIZZE", "3")], &Overrides::new()).unwrap_err();
    assert!(error.contains("\"GUILDHALL__EDGE_GATEWAY__SIZZE\" in the environment"), "{error}");
    let error = load(None, &[("GUILDHALL__EDGE_GATEWAY__LIMIT__MOTS", "3")], &Overrides::new()).unwrap_err();
    assert!(error.contains("\"GUILDHALL__EDGE_GATEWAY__LIMIT__MOTS\" in the environment"), "{error}");

    let error = load(None, &[], &Overrides::new().set("limit.windo", "1s")).unwrap_err();
    assert!(error.contains("\"limit.windo\" in the flags"), "{error}");
}

#[test]
fn a_value_of_the_wrong_kind_is_an_error_that_names_its_key_as_it_was_written_and_where() {
    let (_directory, path) = file("[edge-gateway]\nlimit = { most = 'many' }\n");
    let error = load(Some(&path), &[("GUILDHALL__EDGE_GATEWAY__SIZE", "1")], &Overrides::new()).unwrap_err();
    let place = format!("\"edge-gateway.limit.most\" in the file {}", path.display());
    assert!(error.contains(&place), "{error}");
    for (name, value) in
        [("GUILDHALL__EDGE_GATEWAY__LIMIT__MOST", "many"), ("GUILDHALL__EDGE_GATEWAY__LIMIT__WINDOW", "soon")]
    {
        let error =
            load(Some(&path), &[("GUILDHALL__EDGE_GATEWAY__LIMIT__MOST", "1"), (name, value)], &Overrides::new())
                .unwrap_err();
        assert!(error.contains(&format!("\"{name}\" in the environment")), "{error}");
    }
}

#[test]
fn a_file_that_is_missing_or_no_toml_or_has_a_value_for_a_section_is_an_error() {
    assert!(load(Some(&PathBuf::from("/nowhere/guildhall.toml")), &[], &Overrides::new()).is_err());
    let (_directory, path) = file("[edge-gateway\n");
    assert!(load(Some(&path), &[], &Overrides::new()).is_err());
    let (_directory, path) = file("edge-gateway = 3\n");
    assert!(load(Some(&path), &[], &Overrides::new()).unwrap_err().contains("not a table"));
}

#[test]
fn a_section_for_no_service_is_an_error_in_the_file_and_in_the_environment() {
    let known = ["auth", "edge-gateway"];
    let (_directory, path) = file("[auth]\n[edge-gatway]\n");
    let error = check_sections(&known, Some(&path), []).unwrap_err().to_string();
    assert!(error.contains("edge-gatway"), "{error}");

    let good = variables(&[("GUILDHALL__EDGE_GATEWAY__SIZE", "1"), ("GUILDHALL_HTTP", "x"), ("PATH", "/bin")]);
    assert!(check_sections(&known, None, good).is_ok());
    let bad = variables(&[("GUILDHALL__AUHT__SIZE", "1")]);
    assert!(check_sections(&known, None, bad).unwrap_err().to_string().contains("GUILDHALL__AUHT__SIZE"));
}
