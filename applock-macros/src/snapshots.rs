//! What comes out, as a person can read it: `trybuild/expand/NAME.rs` holds an
//! annotated item, `NAME.expanded.rs` what the macro makes of it.
//!
//! `APPLOCK_UPDATE=1 cargo test -p applock-macros` writes the snapshots anew; read
//! the difference before you commit it.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, Item, Meta};

#[test]
fn the_expansion_is_what_the_snapshots_say() {
    let update = std::env::var_os("APPLOCK_UPDATE").is_some();
    let sources = sources();
    assert!(
        sources.len() >= 12,
        "only {} snapshots found",
        sources.len()
    );
    let mut wrong = Vec::new();
    for source in sources {
        let made = expanded(&fs::read_to_string(&source).unwrap());
        let snapshot = source.with_extension("expanded.rs");
        if update {
            fs::write(&snapshot, made).unwrap();
        } else if fs::read_to_string(&snapshot).unwrap_or_default() != made {
            wrong.push(format!("{}:\n{made}", snapshot.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "the expansion differs from the snapshot; APPLOCK_UPDATE=1 rewrites it\n{}",
        wrong.join("\n")
    );
}

fn sources() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trybuild/expand");
    let mut sources: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.to_string_lossy().ends_with(".expanded.rs"))
        .collect();
    sources.sort();
    sources
}

/// The file with each of its annotated items expanded; methods too.
fn expanded(source: &str) -> String {
    let file: syn::File = syn::parse_str(source).unwrap();
    let mut made = TokenStream::new();
    for item in file.items {
        match item {
            Item::Impl(mut block) => {
                let methods: TokenStream = std::mem::take(&mut block.items)
                    .into_iter()
                    .map(|method| expand_one(method.to_token_stream()))
                    .collect();
                made.extend(with_items(block.to_token_stream(), methods));
            }
            other => made.extend(expand_one(other.to_token_stream())),
        }
    }
    prettyplease::unparse(&syn::parse2(made).unwrap())
}

/// Takes `#[singleton(…)]` off the item, and expands it.
fn expand_one(item: TokenStream) -> TokenStream {
    let mut tokens: Vec<TokenTree> = item.into_iter().collect();
    let attribute = tokens.windows(2).position(|pair| {
        let attribute: TokenStream = pair.iter().cloned().collect();
        is_ours(attribute.clone()).is_some()
    });
    let Some(at) = attribute else {
        return tokens.into_iter().collect();
    };
    let attribute = is_ours(tokens.drain(at..at + 2).collect()).unwrap();
    crate::expand(attribute, tokens.into_iter().collect())
}

/// The arguments, if this is our attribute.
fn is_ours(tokens: TokenStream) -> Option<TokenStream> {
    use syn::parse::Parser as _;
    let attributes = Attribute::parse_outer.parse2(tokens).ok()?;
    match &attributes.first()?.meta {
        Meta::List(list) if list.path.is_ident("singleton") => Some(list.tokens.clone()),
        Meta::Path(path) if path.is_ident("singleton") => Some(TokenStream::new()),
        _ => None,
    }
}

fn with_items(block: TokenStream, items: TokenStream) -> TokenStream {
    let mut tokens: Vec<TokenTree> = block.into_iter().collect();
    if let Some(TokenTree::Group(braces)) = tokens.pop() {
        tokens.push(proc_macro2::Group::new(braces.delimiter(), items).into());
    }
    tokens.into_iter().collect()
}
