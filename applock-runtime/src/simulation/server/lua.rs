//! What scripts see of the server: `redis`, in a Lua of the same version.

use std::cell::RefCell;
use std::collections::BTreeMap;

use mlua::{Function, Lua, LuaOptions, StdLib, Value, Variadic};

use super::wire::Reply;

/// A Lua and the scripts that it knows.
pub(super) struct Scripts {
    lua: Lua,
    known: RefCell<BTreeMap<String, Function>>,
}

impl Scripts {
    /// `command` carries a script's commands out.
    pub(super) fn new(command: impl Fn(&[&str]) -> Reply + 'static) -> mlua::Result<Self> {
        // A panic is one of the simulation's own: no script catches it.
        let options = LuaOptions::new().catch_rust_panics(false);
        let lua = Lua::new_with(StdLib::ALL_SAFE, options)?;
        let pcall = lua.create_function(move |lua, words: Variadic<Value>| {
            let words: Vec<String> = words.iter().map(word).collect::<mlua::Result<_>>()?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            to_lua(lua, &command(&words))
        })?;
        let redis = lua.create_table()?;
        redis.set("call", lua.load(CALL).call::<Function>(&pcall)?)?;
        redis.set("pcall", pcall)?;
        for (function, field) in [("error_reply", "err"), ("status_reply", "ok")] {
            let make = lua
                .create_function(move |lua, text: String| lua.create_table_from([(field, text)]))?;
            redis.set(function, make)?;
        }
        lua.globals().set("redis", redis)?;
        Ok(Self {
            lua,
            known: RefCell::default(),
        })
    }

    pub(super) fn learn(&self, text: &str) -> Function {
        let hash = redis::Script::new(text).get_hash().to_owned();
        let script = self.lua.load(text).into_function().unwrap();
        self.known.borrow_mut().insert(hash, script.clone());
        script
    }

    pub(super) fn known(&self, hash: &str) -> Option<Function> {
        self.known.borrow().get(hash).cloned()
    }

    /// Runs it. A command's error that it does not catch is its answer; by itself, no
    /// script of ours may fail.
    pub(super) fn run(&self, script: &Function, keys: &[&str], arguments: &[&str]) -> Reply {
        let globals = self.lua.globals();
        let strings = |words: &[&str]| self.lua.create_sequence_from(words.iter().copied());
        globals.set("KEYS", strings(keys).unwrap()).unwrap();
        globals.set("ARGV", strings(arguments).unwrap()).unwrap();
        let pcall: Function = globals.get("pcall").unwrap();
        match pcall.call::<(bool, Value)>(script).unwrap() {
            (false, Value::Table(error)) => from_lua(&Value::Table(error)),
            (false, error) => panic!("a script fails: {}", error.to_string().unwrap()),
            (true, answer) => from_lua(&answer),
        }
    }
}

/// Like `pcall`, but an error ends the script, as the table that it is.
const CALL: &str = "local pcall = ...
    return function(...)
        local answer = pcall(...)
        if type(answer) == 'table' and answer.err then
            error(answer)
        end
        return answer
    end";

/// An argument of a command: numbers keep all their digits.
fn word(value: &Value) -> mlua::Result<String> {
    match value {
        Value::String(text) => Ok(text.to_str()?.to_owned()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(mlua::Error::runtime(format!(
            "command arguments must be strings or integers, not {other:?}"
        ))),
    }
}

fn to_lua(lua: &Lua, reply: &Reply) -> mlua::Result<Value> {
    let status = |name: &str, text: &str| lua.create_table_from([(name, text)]).map(Value::Table);
    Ok(match reply {
        // A nil reply is `false` inside a script.
        Reply::Nil => Value::Boolean(false),
        Reply::Int(number) => Value::Integer(*number),
        Reply::Bulk(text) => Value::String(lua.create_string(text)?),
        Reply::Status(text) => status("ok", text)?,
        Reply::Said(text) => status("ok", text)?,
        Reply::Error(text) => status("err", text)?,
        Reply::Array(items) => {
            let items: mlua::Result<Vec<Value>> =
                items.iter().map(|item| to_lua(lua, item)).collect();
            Value::Table(lua.create_sequence_from(items?)?)
        }
        other => panic!("no command of a script's answers {other:?}"),
    })
}

/// What a script returned, as Redis reads it: a number loses what is behind its point,
/// and a list ends at its first nil.
fn from_lua(value: &Value) -> Reply {
    match value {
        Value::Integer(number) => Reply::Int(*number),
        Value::Number(number) => Reply::Int(*number as i64),
        Value::Boolean(true) => Reply::Int(1),
        Value::Nil | Value::Boolean(false) => Reply::Nil,
        Value::String(text) => Reply::Bulk(text.to_string_lossy()),
        Value::Table(table) => {
            if let Ok(error) = table.get::<String>("err") {
                return Reply::Error(error);
            }
            if let Ok(status) = table.get::<String>("ok") {
                return Reply::Said(status);
            }
            let items = table.sequence_values::<Value>();
            Reply::Array(items.map(|item| from_lua(&item.unwrap())).collect())
        }
        other => panic!("no script of ours answers {other:?}"),
    }
}
