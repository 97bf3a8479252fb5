//! Promise: what docs/GUARANTEES.md says of servers of other versions was measured on each server
//! that `scripts/test-servers` knows, without a failure.

const PAGE: &str = include_str!("../../docs/GUARANTEES.md");
const SCRIPT: &str = include_str!("../../scripts/test-servers");

/// The section's table: its head, and a row for each server.
fn table() -> (Vec<&'static str>, Vec<Vec<&'static str>>) {
    let (_, section) = PAGE.split_once("\n## Servers\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("one more section");
    let cells = |row: &'static str| row.trim_matches('|').split('|').map(str::trim).collect();
    let mut rows = section.lines().filter(|line| line.starts_with("| "));
    let head = cells(rows.next().expect("a table"));
    (head, rows.map(cells).collect())
}

/// What the script says between these two.
fn in_script(from: &str, to: &str) -> &'static str {
    let (_, rest) = SCRIPT.split_once(from).expect(from);
    rest.split_once(to).expect(to).0
}

#[test]
fn every_server_has_a_result_of_each_program() {
    let (head, rows) = table();
    assert_eq!(head[..2], ["server", "version"]);
    let programs = in_script("PROGRAMS:-", "}").split(' ');
    // Of Sentinel and Cluster the page has sections of its own.
    assert!(
        programs
            .filter(|name| *name != "ha")
            .eq(head[2..].iter().copied())
    );
    for row in &rows {
        assert_eq!(row.len(), head.len(), "{row:?}");
        for result in &row[2..] {
            let (passed, rest) = result.split_once(" pass").expect(result);
            assert!(
                passed.parse::<u32>().is_ok_and(|passed| passed > 0),
                "{result}"
            );
            assert!(
                rest.is_empty() || rest.contains(" not possible: "),
                "{result}"
            );
        }
    }
}

/// A server of another version that the script installs is measured anew.
#[test]
fn the_rows_are_the_servers_that_the_script_installs() {
    let (_, rows) = table();
    let installed = in_script("\nSERVERS=\"\n", "\n\"").lines();
    let names = installed.filter_map(|line| line.split(' ').next());
    let names = std::iter::once("system").chain(names);
    assert!(names.eq(rows.iter().map(|row| row[0])), "{rows:?}");
    for row in &rows {
        let series = row[0].rsplit_once('-').map_or("", |(_, series)| series);
        assert!(row[1].starts_with(series), "{row:?}");
    }
}
