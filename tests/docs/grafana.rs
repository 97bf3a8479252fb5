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
