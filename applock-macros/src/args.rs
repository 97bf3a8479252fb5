//! Reading `app = "...", ttl = 60, ...`: which argument stands where, and what is
//! wrong with it. What a value may be is said in `value.rs` and `duration.rs`.

use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::{Expr, Ident, Lit, Path, Token, token};

use crate::capture::Template;
use crate::duration::Length;
use crate::mistakes::Mistakes;
use crate::suggest::nearest;
use crate::value::{self, App, OnBusy, OnLost, Wait};

/// Every argument, and how to write it.
const ARGUMENTS: [(&str, &str); 17] = [
    ("app", "app = \"reports\""),
    ("name", "name = \"tenant-{tenant}\""),
    ("key", "key = \"reports:nightly\""),
    ("ttl", "ttl = 60"),
    ("wait", "wait = \"10s\""),
    ("every", "every = \"1h\""),
    ("tick", "tick = fired_at"),
    ("retry", "retry = failed"),
    ("at_least", "at_least = \"30s\""),
    ("at_most", "at_most = \"1h\""),
    ("remember", "remember = \"30d\""),
    ("reentrant", "reentrant"),
    ("on_busy", "on_busy = skip"),
    ("on_lost", "on_lost = cancel"),
    ("locker", "locker = my_locker()"),
    ("guard", "guard = guard"),
    ("crate", "crate = applock"),
];

/// What people who know other libraries write first.
const OTHER_WORDS: [(&str, &str); 20] = [
    ("application", "app"),
    ("namespace", "app"),
    ("lock", "key"),
    ("lock_name", "name"),
    ("id", "name"),
    ("lease", "ttl"),
    ("expire", "ttl"),
    ("expiry", "ttl"),
    ("duration", "ttl"),
    ("timeout", "wait"),
    ("lock_at_least", "at_least"),
    ("lock_at_most", "at_most"),
    ("max", "at_most"),
    ("min", "at_least"),
    ("recursive", "reentrant"),
    ("interval", "every"),
    ("period", "every"),
    ("schedule", "every"),
    ("scheduled_at", "tick"),
    ("retries", "retry"),
];

/// The arguments of one attribute.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) app: Option<App>,
    pub(crate) name: Option<Template>,
    pub(crate) key: Option<Template>,
    pub(crate) ttl: Option<Length>,
    pub(crate) wait: Option<Wait>,
    pub(crate) every: Option<Length>,
    pub(crate) tick: Option<Expr>,
    pub(crate) retry_failed: bool,
    pub(crate) at_least: Option<Length>,
    pub(crate) at_most: Option<Length>,
    pub(crate) remember: Option<Length>,
    pub(crate) reentrant: bool,
    pub(crate) on_busy: OnBusy,
    pub(crate) on_lost: Option<(OnLost, Ident)>,
    pub(crate) locker: Option<Expr>,
    pub(crate) guard: Option<Ident>,
    pub(crate) krate: Option<Path>,
    /// `app` or `key` was meant, and an error says how to write it.
    pub(crate) meant_a_lock: bool,
    /// The names of the arguments, where they stand.
    pub(crate) given: Vec<Ident>,
}

impl Args {
    /// Whether each call may have a lock of another name.
    pub(crate) fn names_by_arguments(&self) -> bool {
        let mut templates = self.name.iter().chain(&self.key);
        templates.any(|template| !template.captures.is_empty())
    }

    /// Reads all it can; what it can't goes to `mistakes`.
    pub(crate) fn read(tokens: TokenStream, mistakes: &mut Mistakes) -> Self {
        let mut args = Self::default();
        let mut given = Vec::new();
        let read = |input: ParseStream| {
            while !input.is_empty() {
                args.next(input, &mut given, mistakes)?;
            }
            Ok(())
        };
        if let Err(error) = read.parse2(tokens) {
            mistakes.add(error);
        }
        args.given = given;
        args
    }

    /// One argument and the comma after it.
    fn next(
        &mut self,
        input: ParseStream,
        given: &mut Vec<Ident>,
        mistakes: &mut Mistakes,
    ) -> syn::Result<()> {
        if let Some(comma) = input.parse::<Option<Token![,]>>()? {
            mistakes.at(comma, "nothing stands before this comma; take it out");
            return Ok(());
        }
        if !input.peek(Ident::peek_any) {
            return self.not_a_name(input, mistakes);
        }
        let name = input.call(Ident::parse_any)?;
        let known = ARGUMENTS.iter().find(|(known, _)| name == known);
        let example = known.map_or("name = value", |(_, example)| example);
        let repeated = given.contains(&name);
        if known.is_none() {
            let (message, meant) = unknown(&name);
            mistakes.at(&name, message);
            self.meant_a_lock |= matches!(meant, Some("app" | "key"));
        }
        // The one argument that is a word and no more.
        let is_flag = name == "reentrant" && !input.peek(Token![=]);
        if is_flag {
            self.reentrant = true;
        } else if let Err(message) = equals(input, &name, example) {
            self.meant_a_lock |= name == "app" || name == "key";
            // A second word about an unknown name would be noise.
            if known.is_some() {
                mistakes.at(&name, message);
            }
            return skip(input);
        }
        if repeated {
            mistakes.at(
                &name,
                format_args!("`{name}` is given twice; each argument stands at most once"),
            );
        } else if known.is_some() {
            given.push(name.clone());
        }
        // A value that is not wanted is still read, to find where it ends.
        let mut unwanted = Self::default();
        let mut silent = Mistakes::default();
        let read = if is_flag {
            Ok(())
        } else if known.is_none() || repeated {
            unwanted.value(&name, input, &mut silent)
        } else {
            self.value(&name, input, mistakes)
        };
        if let Err(error) = read {
            mistakes.add(syn::Error::new(
                error.span(),
                format_args!(
                    "`{name}` has a value that can't be read ({error}); write `{example}`"
                ),
            ));
            return skip(input);
        }
        if input.is_empty() || input.parse::<Option<Token![,]>>()?.is_some() {
            return Ok(());
        }
        if starts_an_argument(input) {
            let next = input.fork().call(Ident::parse_any)?;
            mistakes.at(&next, format_args!("a comma is missing before `{next}`"));
            return Ok(());
        }
        let found: TokenTree = input.fork().parse()?;
        let after = if is_flag { "" } else { "the value of " };
        mistakes.at(
            found,
            format_args!("expected a comma, or the end, after {after}`{name}`"),
        );
        skip(input)
    }

    /// Something else than `name = …`.
    fn not_a_name(&mut self, input: ParseStream, mistakes: &mut Mistakes) -> syn::Result<()> {
        let found: TokenTree = input.fork().parse()?;
        match input.fork().parse::<Lit>() {
            Ok(Lit::Str(text)) => mistakes.at(
                &text,
                format_args!(
                    "an argument needs its name: write `app = {:?}`",
                    text.value()
                ),
            ),
            _ => mistakes.at(
                found,
                "expected an argument, such as `app = \"reports\"` or `ttl = 60`",
            ),
        }
        let _: TokenTree = input.parse()?;
        skip(input)
    }

    fn value(
        &mut self,
        name: &Ident,
        input: ParseStream,
        mistakes: &mut Mistakes,
    ) -> syn::Result<()> {
        let argument = name.to_string();
        if argument == "crate" {
            self.krate = value::path(input, mistakes)?;
            return Ok(());
        }
        let expr = value::bare(input.parse()?);
        let argument = argument.as_str();
        match argument {
            "app" => self.app = value::app(expr, mistakes),
            "name" => self.name = value::template(argument, expr, mistakes),
            "key" => self.key = value::template(argument, expr, mistakes),
            "ttl" => self.ttl = value::lease(argument, expr, mistakes),
            "wait" => self.wait = value::wait(expr, mistakes),
            "every" => self.every = value::every(expr, mistakes),
            "tick" => self.tick = value::tick(expr, mistakes),
            "retry" => self.retry_failed = value::retry(&expr, mistakes),
            "at_least" => self.at_least = value::at_least(expr, mistakes),
            "at_most" => self.at_most = value::lease(argument, expr, mistakes),
            "remember" => self.remember = value::lease(argument, expr, mistakes),
            "reentrant" => value::reentrant(expr, mistakes),
            "on_busy" => self.on_busy = value::on_busy(expr, mistakes),
            "on_lost" => self.on_lost = value::on_lost(expr, mistakes),
            "locker" => self.locker = value::locker(expr, mistakes),
            "guard" => self.guard = value::guard(expr, mistakes),
            _ => {}
        }
        Ok(())
    }
}

/// Consumes the `=` before a value, or says what to write.
fn equals(input: ParseStream, name: &Ident, example: &str) -> Result<(), String> {
    if input.peek(Token![==]) || input.peek(Token![=>]) || input.parse::<Token![=]>().is_err() {
        return Err(format!(
            "expected `=` and a value after `{name}`: write `{example}`"
        ));
    }
    if input.is_empty() || input.peek(Token![,]) {
        return Err(format!(
            "the value after `{name} =` is missing: write `{example}`"
        ));
    }
    Ok(())
}

/// What to say of an unknown name, and which argument was meant.
fn unknown(name: &Ident) -> (String, Option<&'static str>) {
    let plain = name.to_string();
    let meant = OTHER_WORDS
        .iter()
        .find(|(other, _)| *other == plain)
        .map(|&(_, ours)| ours)
        .or_else(|| nearest(&plain, ARGUMENTS.iter().map(|&(known, _)| known)));
    if let Some(meant) = meant {
        let message = format!("there is no argument `{name}`; did you mean `{meant}`?");
        return (message, Some(meant));
    }
    let all: Vec<String> = ARGUMENTS
        .iter()
        .map(|(known, _)| format!("`{known}`"))
        .collect();
    let message = format!(
        "there is no argument `{name}`; the arguments are {}",
        all.join(", ")
    );
    (message, None)
}

fn starts_an_argument(input: ParseStream) -> bool {
    input.peek(Ident::peek_any) && input.peek2(Token![=]) && !input.peek2(Token![==])
}

/// Goes on to the next argument, so that its mistakes are reported too.
fn skip(input: ParseStream) -> syn::Result<()> {
    while !input.is_empty() {
        if input.parse::<Option<Token![,]>>()?.is_some() {
            break;
        }
        // `app("x")` has been reported; its parentheses hold no argument.
        if !input.peek(token::Paren) && starts_an_argument(input) {
            break;
        }
        let _: TokenTree = input.parse()?;
    }
    Ok(())
}
