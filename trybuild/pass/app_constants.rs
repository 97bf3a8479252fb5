//! `app` as an expression of type `&str`: what the compiler knows.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

const APP: &str = "billing";

mod names {
    pub const APP: &str = "reports";
}

fn key() -> String {
    applock::current().unwrap().info().key().to_owned()
}

#[singleton(app = APP, locker = LOCKER)]
async fn constant() -> Option<String> {
    Some(key())
}

#[singleton(app = names::APP, name = "{tenant}", locker = LOCKER)]
fn path(tenant: u32) -> Option<String> {
    Some(key())
}

#[singleton(app = env!("CARGO_PKG_NAME"), locker = LOCKER)]
fn environment() -> Option<String> {
    Some(key())
}

#[singleton(app = concat!("a", "-", 1), locker = LOCKER)]
async fn joined() -> Option<String> {
    Some(key())
}

macro_rules! of_a_macro {
    ($app:expr) => {
        #[singleton(app = $app, locker = LOCKER)]
        fn in_a_macro() -> Option<String> {
            Some(key())
        }
    };
}

of_a_macro!(APP);

trait Job {
    const APP: &'static str;

    #[singleton(app = Self::APP, locker = LOCKER)]
    fn run(&self) -> Option<String> {
        Some(key())
    }
}

struct Import;

impl Job for Import {
    const APP: &'static str = "import";
}

#[tokio::main]
async fn main() {
    assert_eq!(constant().await.unwrap(), "QUEUE:billing");
    assert_eq!(path(7).unwrap(), "QUEUE:reports:7");
    assert_eq!(
        environment().unwrap(),
        concat!("QUEUE:", env!("CARGO_PKG_NAME"))
    );
    assert_eq!(joined().await.unwrap(), "QUEUE:a-1");
    assert_eq!(in_a_macro().unwrap(), "QUEUE:billing");
    assert_eq!(Import.run().unwrap(), "QUEUE:import");
}
