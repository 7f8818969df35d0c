//! Questions that match a book again: answered from a copy of it, away from the event loop.

mod explanation;
mod quote;

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use crate::api::{Answer, ApiError};

pub(super) use explanation::{ExplainStudy, class_name};
pub(super) use quote::QuoteStudy;

/// Studies at once: each keeps a core busy, and a machine also has an epoch to compute.
const STUDIES_MAX: usize = 2;

/// A question with everything that its answer needs.
pub(super) enum Study {
    /// Why an order matched or did not.
    Explain(Box<ExplainStudy>),
    /// What an order would get.
    Quote(Box<QuoteStudy>),
}

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
            ApiError::unavailable("api.busy", "the node is answering other such questions")
        });
        match study.and_then(|study| Ok((study, permit?))) {
            Ok((study, permit)) => {
                tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    // The client may have given up.
                    let _ = answer.send(study.run());
                });
            }
            Err(refused) => {
                let _ = answer.send(Err(refused));
            }
        }
    }
}

impl Study {
    fn run(self) -> Result<Answer, ApiError> {
        Ok(match self {
            Self::Explain(study) => study.run()?.into(),
            Self::Quote(study) => study.run()?.into(),
        })
    }
}
