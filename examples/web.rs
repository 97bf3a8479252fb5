//! A web service on two servers: a request for work that another one does already is answered
//! 409, and one that can't be asked for at all 503.
//!
//! `cargo run --example web` needs no server; `APPLOCK_URL=redis://127.0.0.1:6379` in front of it
//! does the same on Redis. It sends its requests itself, and ends.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use applock::{AppLocker, Error, singleton};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One at a time for each tenant, on all servers. If its client hangs up, axum drops this future: the
/// work ends where it is, and the lock is released.
#[singleton(app = "web-example", name = "{tenant}", ttl = 10, locker = server)]
async fn rebuild(server: &AppLocker, tenant: &str) -> Result<String, Refused> {
    // Stands for the work.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(format!("rebuilt {tenant}"))
}

/// A refusal as an answer to a client.
struct Refused(Error);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        // Who holds the lock, or which server is down, is for the log and not for a client.
        println!("  {}", self.0);
        match self.0 {
            Error::Busy(_) => (StatusCode::CONFLICT, "it is being rebuilt"),
            Error::Unavailable(_) | Error::Closed { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "try again later")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "it could not be done"),
        }
        .into_response()
    }
}

async fn handle(
    State(server): State<AppLocker>,
    Path(tenant): Path<String>,
) -> Result<String, Refused> {
    rebuild(&server, &tenant).await
}

/// Starts a server on a free port.
async fn serve(locker: AppLocker) -> Result<SocketAddr> {
    let service = Router::new()
        .route("/rebuild/{tenant}", post(handle))
        .with_state(locker);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(address)
}

/// A client's request: the answer's first line.
async fn ask(server: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    let request = "POST /rebuild/tenant-7 HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = std::env::var(applock::URL_VARIABLE)
        .unwrap_or_else(|_| format!("dir:{}", directory.path().display()));
    let locker = AppLocker::connect(&url).await?;
    let one = serve(locker.clone()).await?;
    let other = serve(AppLocker::connect(&url).await?).await?;

    let first = tokio::spawn(ask(one));
    let lock = locker.lock("web-example").name("tenant-7");
    while lock.info().await?.is_none() && !first.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("the second client: {}", ask(other).await?);
    println!("the first client: {}", first.await??);

    // Nothing listens there. The lock is not 'busy' then, and the body does not run.
    let cut_off = serve(AppLocker::builder().store("redis://127.0.0.1:1").build()?).await?;
    println!(
        "a client of a server without a store: {}",
        ask(cut_off).await?
    );
    Ok(())
}
