//! What follows from an answer, where a slip would go unnoticed for long.

use super::*;

#[test]
fn a_shutdown_does_not_wait_for_an_orphan_that_is_only_watched() {
    let stage = Stage::new();
    let taking = stage.take(stage.request("k"));
    let (_, reply) = stage.acquire();
    reply.send(vec![unknown()]).unwrap();
    assert!(taking.join().unwrap().is_err());
    let (_, reply) = stage.release();
    // The store may know of something to release: that is waited for.
    let closing = stage.shutdown(Duration::from_secs(60));
    stage.catch_up();
    assert!(!closing.is_finished());
    reply.send(vec![Ok(false)]).unwrap();
    // Nothing is held, as far as is known. The clock stands still.
    stage.until("the shutdown is over", || closing.is_finished());
    closing.join().unwrap().unwrap();
}
