//! The line: the same decisions over one stream, and never a request lost or let through when it breaks.

use std::rc::Rc;

use keyward_contract::check::{CheckRequest, OkHttpResponse};
use keyward_contract::decisions::{Answer, QUESTIONS_UNDER_WAY_MAX};
use prost::Message;
use proxy_wasm::traits::Context;
use proxy_wasm::types::BufferType;

use super::requests::allowed;
use super::standin::{Bench, PROXY, TOOL_CALL, checks, last_token, read};
use crate::exchange::Exchange;
use crate::gateway::Gateway;

/// A request that was asked on an open line, the root context, and the stream's token.
fn asked_on_the_line() -> (Bench, Gateway, u32) {
    let mut bench = Bench::new(r#"{"cluster":"keyward","server":"demo"}"#);
    bench.shared.line.keep_open("keyward");
    let token = last_token();
    bench.headers(&[], false);
    bench.body(TOOL_CALL);
    let root = Gateway::configured(1, Rc::clone(&bench.shared));
    (bench, root, token)
}

fn answer(root: &mut Gateway, token: u32, id: u64, check_response: Vec<u8>) {
    let message = Answer { id, check_response }.encode_to_vec();
    let size = message.len();
    PROXY.with_borrow_mut(|proxy| proxy.buffers.insert(BufferType::GrpcReceiveBuffer as u32, message));
    root.on_grpc_stream_message(token, size);
}

/// The server answers the unary call that the root context made.
fn answer_call(root: &mut Gateway, check_response: Vec<u8>) {
    let size = check_response.len();
    PROXY.with_borrow_mut(|proxy| proxy.buffers.insert(BufferType::GrpcReceiveBuffer as u32, check_response));
    root.on_grpc_call_response(last_token(), 0, size);
}

#[test]
fn asks_and_is_answered_without_a_call() {
    let (_bench, mut root, token) = asked_on_the_line();
    let question = read(|proxy| proxy.questions[0].clone());
    let check = CheckRequest::decode(question.check_request.as_slice()).unwrap();
    assert_eq!(check.attributes.unwrap().request.unwrap().http.unwrap().raw_body, TOOL_CALL.as_bytes());
    answer(&mut root, token, question.id, allowed(OkHttpResponse::default()));
    assert_eq!(read(|proxy| (proxy.resumed, proxy.answers.len(), proxy.calls.len())), (1, 0, 0));
}

#[test]
fn an_answer_to_another_question_lets_nothing_through() {
    let (_bench, mut root, token) = asked_on_the_line();
    answer(&mut root, token, 99, allowed(OkHttpResponse::default()));
    assert_eq!(read(|proxy| proxy.resumed), 0);
    PROXY.with_borrow_mut(|proxy| proxy.buffers.insert(BufferType::GrpcReceiveBuffer as u32, vec![0xff; 9]));
    root.on_grpc_stream_message(token, 9);
    assert_eq!(read(|proxy| proxy.resumed), 0);
}

#[test]
fn an_answer_counts_once() {
    let (_bench, mut root, token) = asked_on_the_line();
    answer(&mut root, token, 1, Vec::new());
    answer(&mut root, token, 1, allowed(OkHttpResponse::default()));
    assert_eq!(read(|proxy| (proxy.resumed, proxy.answers.len())), (0, 1));
}

#[test]
fn a_broken_line_asks_again_by_a_call() {
    let (_bench, mut root, token) = asked_on_the_line();
    root.on_grpc_stream_close(token, 13);
    assert_eq!(read(|proxy| (proxy.resumed, proxy.answers.len())), (0, 0));
    let [check] = checks().try_into().unwrap();
    assert_eq!(check.attributes.unwrap().request.unwrap().http.unwrap().raw_body, TOOL_CALL.as_bytes());
    // The SDK gives the answer to the context that was at work when the call was made.
    answer_call(&mut root, allowed(OkHttpResponse::default()));
    assert_eq!(read(|proxy| proxy.resumed), 1);
    answer_call(&mut root, allowed(OkHttpResponse::default()));
    assert_eq!(read(|proxy| proxy.resumed), 1);
}

#[test]
fn a_client_that_went_away_is_not_asked_about_again() {
    let (mut bench, mut root, token) = asked_on_the_line();
    root.on_grpc_stream_close(token, 0);
    bench.exchange.on_done();
    answer_call(&mut root, allowed(OkHttpResponse::default()));
    assert_eq!(read(|proxy| (proxy.resumed, proxy.answers.len())), (0, 0));
}

#[test]
fn a_line_that_broke_opens_again_after_a_pause() {
    let (bench, mut root, token) = asked_on_the_line();
    root.on_grpc_stream_close(token, 14);
    let before = last_token();
    bench.shared.line.keep_open("keyward");
    assert_eq!(last_token(), before, "not at once");
    for _ in 0..10 {
        bench.shared.line.keep_open("keyward");
    }
    assert_eq!(last_token(), before + 1, "once");
}

#[test]
fn large_and_surplus_questions_go_by_a_call() {
    let mut bench = Bench::new(r#"{"cluster":"keyward","mode":"http"}"#);
    bench.shared.line.keep_open("keyward");
    bench.headers(&[], false);
    bench.body(&"x".repeat(100_000));
    assert_eq!(read(|proxy| (proxy.questions.len(), proxy.calls.len())), (0, 1));
    PROXY.with_borrow_mut(|proxy| proxy.buffers.clear());
    for context in 10..u32::try_from(QUESTIONS_UNDER_WAY_MAX).unwrap() + 11 {
        bench.exchange = Exchange::new(context, Some(Rc::clone(&bench.shared)));
        bench.headers(&[], true);
    }
    assert_eq!(read(|proxy| (proxy.questions.len(), proxy.calls.len())), (QUESTIONS_UNDER_WAY_MAX, 2));
}

#[test]
fn nobody_waits_for_the_answer_of_a_client_that_went_away() {
    let (mut bench, mut root, token) = asked_on_the_line();
    bench.exchange.on_done();
    answer(&mut root, token, 1, allowed(OkHttpResponse::default()));
    root.on_grpc_stream_close(token, 13);
    assert_eq!(read(|proxy| (proxy.resumed, proxy.answers.len(), proxy.calls.len())), (0, 0, 0));
}

#[test]
fn an_answer_that_does_not_come_in_time_denies() {
    let (bench, _root, _token) = asked_on_the_line();
    let overdue = std::iter::from_fn(|| Some(bench.shared.watch.tick())).take(12).flatten().next();
    overdue.unwrap().overdue(&bench.shared);
    assert_eq!(read(|proxy| (proxy.resumed, proxy.answers.len())), (0, 1));
    assert!(read(|proxy| proxy.answers[0].body.contains("decision_unavailable")));
    assert!(bench.shared.line.answered(1).is_none());
}

#[test]
fn without_a_line_requests_go_by_a_call() {
    let mut bench = Bench::new(r#"{"cluster":"keyward"}"#);
    bench.headers(&[], false);
    bench.body(TOOL_CALL);
    assert_eq!(checks().len(), 1);
}
