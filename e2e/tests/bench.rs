//! The benchmarks work: each runs once, as short as can be. What they measure is nobody's test.

use std::process::Command;

/// Runs one, and answers with its table.
fn table(arguments: &[&str]) -> Vec<Vec<String>> {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).output().expect("the program runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    let rows = printed.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// That each of the contenders has figures in each contest.
#[track_caller]
fn expect_figures(table: &[Vec<String>], contests: usize, contenders: &[&str]) {
    let (head, rows) = table.split_first().expect("a table");
    assert_eq!(rows.len(), contests * contenders.len(), "{table:?}");
    for (row, contender) in rows.iter().zip(contenders.iter().cycle()) {
        assert_eq!(row.len(), head.len(), "{row:?}");
        assert_eq!(row[1], *contender, "{row:?}");
        let (p50, rate) = (row[2].strip_suffix(" ms").expect("a time"), &row[4]);
        assert!(p50.parse::<f64>().expect("a number") > 0.0, "{row:?}");
        assert!(rate.parse::<f64>().expect("a number") > 0.0, "{row:?}");
    }
}

#[test]
fn the_mesh_is_compared_with_plaintext_in_one_process_and_between_two() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("a path");
    let table = table(&["mesh", "--rounds", "1", "--calls", "50", "--json", path]);
    expect_figures(&table, 6, &["plaintext", "mutual TLS alone", "mesh"]);
    let json: serde_json::Value = serde_json::from_reader(file.as_file()).expect("JSON");
    let rows = json["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 18, "{json:#}");
    let calls: Vec<_> = rows.iter().step_by(3).map(|row| row["calls"].as_u64().expect("a count")).collect();
    assert_eq!(calls, [50, 200, 3, 50, 200, 3]);
}

#[test]
fn the_edge_is_compared_with_content_itself() {
    let table = table(&["edge", "--rounds", "1", "--calls", "10"]);
    expect_figures(&table, 6, &["content directly, gRPC", "through the edge, gRPC", "through the edge, REST"]);
}

#[test]
fn guildhall_dev_is_started_and_weighed() {
    let table = table(&["dev", "--rounds", "1", "--idle", "0"]);
    let figures: Vec<&str> = table.iter().skip(1).map(|row| row[1].as_str()).collect();
    assert_eq!(figures.len(), 3, "{table:?}");
    assert!(figures[0].contains(" ms (") && figures[1].contains(" ms ("), "{figures:?}");
    let memory: u64 = figures[2].split(' ').next().and_then(|size| size.parse().ok()).expect("a size");
    assert!(memory > 0, "{figures:?}");
}
