//! The `#[singleton]` attribute of `applock`. Use it through that crate.
//!
//! Syntax only: attribute text in, tokens out. What happens at run time is in
//! `applock-runtime`.

use proc_macro2::TokenStream;

mod args;
mod async_trait;
mod capture;
mod duration;
mod expand;
mod item;
mod mistakes;
mod output;
#[cfg(test)]
mod snapshots;
mod suggest;
mod value;

/// Runs a function on one instance at a time, across every server.
#[proc_macro_attribute]
pub fn singleton(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    expand(args.into(), item.into()).into()
}

fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut mistakes = mistakes::Mistakes::default();
    let args = args::Args::read(args, &mut mistakes);
    let function = item::Function::read(item.clone(), &mut mistakes);
    if let Some(function) = &function {
        function.check(&args, &mut mistakes);
    }
    match (mistakes.into_tokens(), function) {
        (None, Some(function)) => expand::function(&args, &function),
        // The item still stands as it was written, so that an editor keeps working
        // inside it and its callers are not told that it does not exist.
        (Some(mut errors), _) => {
            errors.extend(item);
            errors
        }
        (None, None) => item,
    }
}
