//! In which order metrics are told.

use metrics::with_local_recorder;

use super::*;
use crate::measures::told::Told;

#[test]
fn who_sees_a_failed_heartbeat_sees_that_the_store_is_down() {
    let told = Told::default();
    with_local_recorder(&told, || {
        let (stage, work) = Stage::driven();
        let mut work = pin!(work);
        let mut context = Context::from_waker(Waker::noop());
        let mut work_on = || assert!(work.as_mut().poll(&mut context).is_pending());
        let taking = stage.take(stage.request("k"));
        work_on();
        let (_, reply) = stage.acquire();
        reply.send(vec![granted()]).unwrap();
        work_on();
        let _held = taking.join().unwrap().unwrap();
        stage.clock.advance(TTL / 3);
        work_on();
        let (_, reply) = stage.renew();
        let _ = told.take();
        reply.send(vec![unknown()]).unwrap();
        work_on();
        let names = told.take();
        let place = |name: &str| names.iter().position(|told| told == name);
        let up = place("applock_store_up").expect("it is down now");
        let failed = place("applock_heartbeat_failures_total").expect("it has failed");
        assert!(up < failed, "{names:?}");
    });
}
