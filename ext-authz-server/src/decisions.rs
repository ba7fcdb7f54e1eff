//! Many decisions over one stream, each the same as by a unary Check. Answers come in any order.

use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use keyward_contract::decisions::{Answer, QUESTIONS_UNDER_WAY_MAX, Question};
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::check::Engine;
use crate::report::proto::decisions_server::Decisions;

/// The service behind `keyward.v1.Decisions`.
pub struct Lines {
    engine: Arc<Engine>,
}

// === impl Lines ===

impl Lines {
    /// Answers with this engine's decisions.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Lines {
        Lines { engine }
    }
}

#[tonic::async_trait]
impl Decisions for Lines {
    type StreamStream = ReceiverStream<Result<Answer, Status>>;

    async fn stream(&self, request: Request<Streaming<Question>>) -> Result<Response<Self::StreamStream>, Status> {
        let (answers, outgoing) = mpsc::channel(QUESTIONS_UNDER_WAY_MAX);
        tokio::spawn(serve(self.engine.clone(), request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Reads questions until the caller ends the stream or the drain begins. The stream ends when the last question under way
/// is answered, because each of them holds a sender.
async fn serve(engine: Arc<Engine>, mut questions: Streaming<Question>, answers: mpsc::Sender<Result<Answer, Status>>) {
    let under_way = Arc::new(Semaphore::new(QUESTIONS_UNDER_WAY_MAX));
    while let Ok(permit) = under_way.clone().acquire_owned().await {
        let question = tokio::select! {
            question = questions.message() => question,
            () = engine.draining() => return,
            () = answers.closed() => return,
        };
        let Ok(Some(question)) = question else { return };
        let (engine, answers) = (engine.clone(), answers.clone());
        tokio::spawn(async move {
            let answer = Answer { id: question.id, check_response: decide(&engine, &question.check_request).await };
            // An error means that the caller is gone, and with it whoever waits for the answer.
            let _ = answers.send(Ok(answer)).await;
            drop(permit);
        });
    }
}

async fn decide(engine: &Engine, check_request: &[u8]) -> Vec<u8> {
    match CheckRequest::decode(check_request) {
        Ok(request) => engine.check(&request).await.encode_to_vec(),
        // Not an answer that allows or explains anything: the filter denies.
        Err(_) => {
            let status = RpcStatus { code: i32::from(Code::InvalidArgument), ..RpcStatus::default() };
            CheckResponse { status: Some(status), ..CheckResponse::default() }.encode_to_vec()
        }
    }
}
