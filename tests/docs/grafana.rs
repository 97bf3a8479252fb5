//! Promise: `docs/grafana.json` has six panels and four alerts, which ask for metrics that there are.

use std::collections::BTreeSet;

use serde_json::Value;

/// Those that the README lists.
fn metrics() -> BTreeSet<&'static str> {
    let rows = include_str!("../../README.md").lines();
    rows.filter_map(|row| row.strip_prefix("| `applock_")?.split_once('`'))
        .map(|(name, _)| name.split_once('{').map_or(name, |(name, _)| name))
        .collect()
}

/// What the README says of a metric: its labels, and the words in back-ticks that they may be.
fn row(metric: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut rows = include_str!("../../README.md").lines();
    let begin = format!("| `applock_{metric}");
    let is_its = |row: &str| {
        let rest = row.strip_prefix(&begin);
        rest.is_some_and(|rest| rest.starts_with(['`', '{']))
    };
    let row = rows
        .find(|row| is_its(row))
        .unwrap_or_else(|| panic!("{metric}"));
    let words: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
    let labels = words[0].split_once('{').map_or("", |(_, labels)| labels);
    (labels.trim_end_matches('}').split(',').collect(), words)
}

/// Each `metric{label="value"}` and each `by (label)` is of labels and values that there are.
fn check_labels(expression: &str) {
    for part in expression.split("applock_").skip(1) {
        let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let (metric, rest) = part.split_at(part.find(ends).unwrap_or(part.len()));
        let Some(matchers) = rest.strip_prefix('{') else {
            continue;
        };
        let (labels, words) = row(metric);
        for matcher in matchers.split('}').next().unwrap().split(',') {
            let (label, value) = matcher.split_once(['=', '!']).unwrap();
            let value = value.trim_start_matches(['=', '~']).trim_matches('"');
            let is_quantile = label == "quantile" && value.parse::<f64>().is_ok();
            assert!(
                labels.contains(&label) || is_quantile,
                "{expression}: {label}"
            );
            let is_known = words.contains(&value) || value == "$app" || is_quantile;
            assert!(is_known, "{expression}: {value}");
        }
    }
    for grouped in ["by (", "on ("] {
        for part in expression.split(grouped).skip(1) {
            for label in part.split(')').next().unwrap().split(", ") {
                let known = ["app", "instance", "outcome", "reason"];
                assert!(known.contains(&label), "{expression}: {label}");
            }
        }
    }
}

/// The metrics of an expression.
fn asked_for(expression: &str) -> BTreeSet<String> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let words = expression.split(ends);
    words
        .filter_map(|word| word.strip_prefix("applock_").map(str::to_owned))
        .collect()
}

fn texts<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == name => found.push(text),
                    other => texts(other, name, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, name, found)),
        _ => (),
    }
}

#[test]
fn the_dashboard_has_six_panels_and_four_alerts_of_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(include_str!("../../docs/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rules = dashboard["alerts"]["groups"][0]["rules"]
        .as_array()
        .unwrap();
    assert_eq!((panels.len(), rules.len()), (6, 4));
    let metrics = metrics();
    assert_eq!(metrics.len(), 9, "{metrics:?}");
    let mut shown = BTreeSet::new();
    for each in panels.iter().chain(rules) {
        let mut expressions = Vec::new();
        texts(each, "expr", &mut expressions);
        assert!(!expressions.is_empty(), "{each}");
        for expression in expressions {
            let open = |c| expression.matches(c).count();
            assert_eq!(open('('), open(')'), "{expression}");
            check_labels(expression);
            let asked = asked_for(expression);
            assert!(!asked.is_empty(), "{expression}");
            shown.extend(asked);
        }
        let title = each["title"].as_str().unwrap();
        let words = each["description"]
            .as_str()
            .or(each["annotations"]["description"].as_str());
        assert!(words.is_some_and(|words| !words.is_empty()), "{title}");
    }
    // All are shown, and nothing else.
    assert!(shown.iter().map(String::as_str).eq(metrics), "{shown:?}");
}
