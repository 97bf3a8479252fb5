//! What an operator asks of each server by itself: for `applock doctor`, which looks at what a lock
//! needs of a server, and not at locks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use serde_json::Value as Json;
use tokio::time::Instant;

use crate::shown::shown_text;
use crate::store::{Question, Said, StoreResult};

use super::RedisStore;
use super::connection::{About, Failed};
use super::error::Hint;
use super::node::Node;

/// How deep an answer is read: no answer that is asked for is deeper.
const DEEPEST: usize = 8;

impl RedisStore {
    /// Sends one command to each server that has locks, but for those that are not to be asked.
    pub(super) async fn ask_each(
        self: Arc<Self>,
        question: &Question,
        within: Duration,
    ) -> StoreResult<Vec<Said>> {
        let Some((name, arguments)) = question.words.split_first() else {
            return Ok(Vec::new());
        };
        let mut command = redis::cmd(name);
        command.arg(arguments);
        let nodes = Arc::clone(&self.topology).all(within).await?;
        let is_asked = |node: &&Arc<Node>| {
            let name = shown_text(node.connection.shown());
            !question.except.contains(&name)
        };
        let asked = nodes.iter().filter(is_asked).map(|node| async {
            let connection = &node.connection;
            let begun = Instant::now();
            let answer = connection.send(&command, About::default(), within).await;
            let unanswered =
                |failed: &Failed| matches!(failed.hint, Hint::Silent | Hint::Unreachable);
            Said {
                server: connection.shown().into(),
                took: begun.elapsed(),
                is_answered: !answer.as_ref().is_err_and(unanswered),
                answer: answer
                    .map(|value| json(&value, DEEPEST))
                    .map_err(Into::into),
            }
        });
        Ok(join_all(asked).await)
    }
}

fn json(value: &Value, deepest: usize) -> Json {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if deepest == 0 {
        return Json::Null;
    }
    match value {
        Value::Int(number) => (*number).into(),
        Value::BulkString(bytes) => text(bytes).into(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.as_str().into(),
        Value::Okay => "OK".into(),
        Value::Boolean(is) => (*is).into(),
        Value::Array(values) | Value::Set(values) => {
            values.iter().map(|one| json(one, deepest - 1)).collect()
        }
        Value::Map(pairs) => pairs
            .iter()
            .flat_map(|(name, value)| [json(name, deepest - 1), json(value, deepest - 1)])
            .collect(),
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_deep_as_any_that_is_asked_for_and_no_deeper() {
        let mut value = Value::Array(vec![Value::Int(7), Value::BulkString(b"a\xff".to_vec())]);
        assert_eq!(json(&value, DEEPEST), serde_json::json!([7, "a\u{fffd}"]));
        for _ in 0..10_000 {
            value = Value::Array(vec![value]);
        }
        assert!(json(&value, DEEPEST).to_string().contains("null"));
        // Its own end would be as deep.
        std::mem::forget(value);
    }
}
