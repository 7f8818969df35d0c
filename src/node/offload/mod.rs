//! Questions that take all orders of an epoch or match a book again: answered from a copy,
//! away from the event loop.

mod epoch;
mod explanation;
mod quote;

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{Semaphore, oneshot};

use crate::api::{Answer, ApiError};
use capex_core::book::{OrderSet, instance};
use capex_core::reason;

pub(super) use epoch::{EpochStudy, PastEpoch, prices, shown};
pub(super) use explanation::{ExplainStudy, class_name, feature_names};
pub(super) use quote::QuoteStudy;

/// Studies at once: each keeps its threads busy, and a machine also has an epoch to compute.
const STUDIES_MAX: usize = 2;
/// Threads of each: a pool of its own, so that it never takes those that compute an epoch.
const STUDY_THREADS: usize = 2;

/// A question with everything that its answer needs.
pub(super) enum Study {
    /// Why an order matched or did not.
    Explain(Box<ExplainStudy>),
    /// What an order would get, and the orders that its book lacks so far.
    Quote(Box<QuoteStudy>, Arc<OrderSet>),
    /// Whether an epoch is what its orders give.
    EpochCheck(Box<EpochStudy>),
    /// An epoch as `capex match` reads it.
    EpochExport(Box<EpochStudy>),
    /// An epoch with its signed orders.
    EpochSigned(Box<EpochStudy>),
    EpochShow(Box<EpochStudy>),
    /// Any of these about an epoch that has to be read first.
    Past(Box<PastEpoch>, Then),
}

/// The study that an epoch, once read, becomes.
pub(super) type Then = Box<dyn FnOnce(EpochStudy) -> Result<Study, ApiError> + Send>;

/// Runs studies, a few at a time.
#[derive(Debug)]
pub(super) struct Studies {
    free: Arc<Semaphore>,
}

impl Studies {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(STUDIES_MAX)) }
    }

    /// Answers in a thread of its own, or refuses with `api.busy`. A study that has begun
    /// runs to its end, also if nobody waits for it any more.
    pub(super) fn start(
        &self,
        study: Result<Study, ApiError>,
        answer: oneshot::Sender<Result<Answer, ApiError>>,
    ) {
        let permit = self.free.clone().try_acquire_owned().map_err(|_| {
            ApiError::new(reason!("api.busy"), "the node is answering other such questions")
        });
        match permit.and_then(|permit| Ok((permit, study?))) {
            Ok((permit, study)) => {
                tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    let result = pool().and_then(|pool| pool.install(|| study.run()));
                    // The client may have given up.
                    let _ = answer.send(result);
                });
            }
            Err(refused) => {
                let _ = answer.send(Err(refused));
            }
        }
    }
}

/// The threads of one study: small enough to be made anew for each.
fn pool() -> Result<ThreadPool, ApiError> {
    let builder = ThreadPoolBuilder::new().num_threads(STUDY_THREADS);
    let pool = builder.thread_name(|at| format!("study-{at}")).build();
    pool.map_err(|error| {
        ApiError::new(reason!("api.busy"), format!("no threads for the question: {error}"))
    })
}

impl Study {
    fn run(self) -> Result<Answer, ApiError> {
        Ok(match self {
            Self::Explain(study) => study.run()?.into(),
            Self::Quote(mut study, set) => {
                let book = instance(&set.book(), study.instance.epoch, &study.params);
                // The order that is asked about stays last.
                study.instance.orders.splice(..0, book.orders);
                study.run()?.into()
            }
            Self::EpochCheck(study) => study.check().into(),
            Self::EpochExport(study) => study.input().into(),
            Self::EpochSigned(study) => study.signed()?.into(),
            Self::EpochShow(study) => shown(&study.params, &study.result, Vec::new()).into(),
            Self::Past(epoch, then) => return then(epoch.open()?)?.run(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_study_at_once_is_refused() {
        let studies = Studies::new();
        let asked = |refusal: &str| {
            let (answer, mut answered) = oneshot::channel();
            studies.start(Err(ApiError::coded(refusal, "")), answer);
            answered.try_recv().unwrap().unwrap_err().code
        };
        let running: Vec<_> =
            (0..STUDIES_MAX).map(|_| studies.free.clone().try_acquire_owned().unwrap()).collect();
        assert_eq!(asked("order.not_found"), "api.busy");
        drop(running);
        assert_eq!(asked("order.not_found"), "order.not_found", "a refusal gives its place back");
        assert_eq!(studies.free.available_permits(), STUDIES_MAX);
    }
}
