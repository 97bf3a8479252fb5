//! A recorder for tests: which metrics were told, in their order.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

/// Installed by [`metrics::with_local_recorder`] for what this thread tells.
#[derive(Default)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    /// The names of what was told since this was last asked.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn of(&self, key: &Key) -> Arc<One> {
        Arc::new(One {
            name: key.name().to_owned(),
            told: Arc::clone(&self.0),
        })
    }
}

/// One metric.
struct One {
    name: String,
    told: Arc<Mutex<Vec<String>>>,
}

impl One {
    fn tell(&self) {
        self.told.lock().unwrap().push(self.name.clone());
    }
}

impl CounterFn for One {
    fn increment(&self, _: u64) {
        self.tell();
    }
    fn absolute(&self, _: u64) {
        self.tell();
    }
}

impl GaugeFn for One {
    fn increment(&self, _: f64) {
        self.tell();
    }
    fn decrement(&self, _: f64) {
        self.tell();
    }
    fn set(&self, _: f64) {
        self.tell();
    }
}

impl HistogramFn for One {
    fn record(&self, _: f64) {
        self.tell();
    }
}

impl Recorder for Told {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.of(key))
    }
}
