//! Every check that needs more than one argument, or the arguments and their function.

use proc_macro2::Span;
use syn::Signature;

use crate::args::Args;
use crate::capture::Template;
use crate::duration::Length;
use crate::item::Function;
use crate::mistakes::Mistakes;
use crate::output;
use crate::suggest::nearest;
use crate::value::{OnBusy, OnLost};

/// What only shows when all arguments are known.
pub(crate) fn arguments(args: &Args, mistakes: &mut Mistakes) {
    let find = |wanted: &str| args.given.iter().find(|name| *name == wanted);
    match (find("app"), find("key")) {
        (None, None) if !args.meant_a_lock => mistakes.at_span(
            Span::call_site(),
            "`app` is missing: write `#[singleton(app = \"reports\")]`; every function with \
             the same `app` shares one lock",
        ),
        (Some(_), Some(key)) => mistakes.at(
            key,
            "`key` is the whole key, so `app` can't stand beside it; keep one of the two",
        ),
        _ => {}
    }
    if let (Some(_), Some(name)) = (find("key"), find("name")) {
        mistakes.at(
            name,
            "`key` is the whole key, so `name` can't stand beside it; write the name into \
             the key, or use `app` and `name`",
        );
    }
    if let (Some(every), Some(_)) = (find("every"), find("tick")) {
        mistakes.at(
            every,
            "`tick` says by itself when the next run is due, so `every` can't stand beside it; \
             keep one of the two",
        );
    }
    if let (Some(retry), None, None) = (find("retry"), find("every"), find("tick")) {
        mistakes.at(
            retry,
            "`retry = failed` says that a failed run does not count as the run of its tick, and \
             there are no ticks here: write `every = \"1h\"` or `tick = fired_at` beside it",
        );
    }
    if let (Some(Length::Fixed(least, at)), Some(Length::Fixed(most, _))) =
        (&args.at_least, &args.at_most)
        && least > most
    {
        mistakes.at(
            at,
            format_args!(
                "`at_least` ({}) is longer than `at_most` ({})",
                humantime::format_duration(*least),
                humantime::format_duration(*most)
            ),
        );
    }
}

/// Refuses functions that can't run under a lock, and arguments that don't suit
/// this one.
pub(crate) fn function(function: &Function, args: &Args, mistakes: &mut Mistakes) {
    signature(&function.sig, mistakes);
    let is_async = function.sig.asyncness.is_some() || function.is_async_trait();
    if !is_async {
        output::check_sync(&function.sig, mistakes);
        if let Some((OnLost::Cancel, word)) = &args.on_lost {
            mistakes.at(
                word,
                "a function that is not async can't be cancelled: write `on_lost = finish` \
                 and ask the guard (`guard = guard`, `guard.ensure_held()?`), or make it an \
                 `async fn` (an attribute that makes it sync, such as #[tokio::main], belongs \
                 below this one)",
            );
        }
    }
    if matches!(args.on_busy, OnBusy::Unset | OnBusy::Error | OnBusy::Skip) {
        output::check_refusal(&function.sig, mistakes);
    }
    if let Some(guard) = &args.guard
        && function
            .bindings()
            .iter()
            .any(|binding| binding.ident == *guard)
    {
        mistakes.at(
            guard,
            format_args!("`guard = {guard}` would hide the argument `{guard}`; take another name"),
        );
    }
    for template in args.name.iter().chain(&args.key) {
        captures(template, function, mistakes);
    }
}

fn signature(sig: &Signature, mistakes: &mut Mistakes) {
    if let Some(constness) = &sig.constness {
        mistakes.at(
            constness,
            "a `const fn` can run while compiling, where there is no lock to take; take \
             `const` off, or annotate its caller",
        );
    }
    if let Some(abi) = &sig.abi
        && abi.name.as_ref().is_none_or(|name| name.value() != "Rust")
    {
        mistakes.at(
            abi,
            "a function with a foreign ABI is called by code that can't be told that the \
             lock is busy; annotate a Rust function, and call that one from here",
        );
    }
    if let Some(variadic) = &sig.variadic {
        mistakes.at(
            variadic,
            "a variadic function can't run under a lock; annotate a function with named \
             arguments, and call that one from here",
        );
    }
}

/// Tells of every capture that names no argument of the function.
fn captures(template: &Template, function: &Function, mistakes: &mut Mistakes) {
    for capture in &template.captures {
        if capture == "self" {
            if function.sig.receiver().is_none() {
                mistakes.at(
                    &template.literal,
                    "`{self}` is captured, and this function has no `self`",
                );
            }
            continue;
        }
        let names = function.capturable();
        if names.iter().any(|name| name == capture) {
            continue;
        }
        let remedy = if let Some(near) = nearest(capture, names.iter().map(String::as_str)) {
            format!("did you mean `{{{near}}}`?")
        } else if function.is_async_trait() {
            "under #[async_trait] the parts of a pattern can't be captured: give the whole \
             argument a name"
                .to_owned()
        } else if names.is_empty() {
            "it has none; for a brace as such, write `{{` and `}}`".to_owned()
        } else {
            format!("it has {}", list(&names))
        };
        mistakes.at(
            &template.literal,
            format_args!("`{{{capture}}}` names no argument of this function: {remedy}"),
        );
    }
}

fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
