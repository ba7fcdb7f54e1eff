//! The MCP server itself: tools, prompts and resources on the official SDK.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::handler::server::common::schema_for_type;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, GetPromptRequestParams,
    GetPromptResponse, GetPromptResult, Implementation, JsonObject, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, MetaObject, PaginatedRequestParams, ProgressNotificationParam, Prompt,
    PromptArgument, PromptMessage, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate, Role, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::carrier::{Carrier, Leak};
use crate::credential::Presented;
use crate::form::Form;
use crate::record::Recorder;
use crate::wire::{FILLER_HERE, in_sdk_answer};

const MAX_MILLIS: u64 = 60_000;
const MAX_EVENTS: u32 = 10_000;
const ABOUT_URI: &str = "upstream://about";
const LEAK_URI: &str = "upstream://leak/";
const PROMPT: &str = "greeting";

/// The handler of all sessions and of all stateless requests.
#[derive(Clone)]
pub(crate) struct Tools {
    /// Where abandoned calls are counted.
    pub(crate) recorder: Arc<Recorder>,
}

/// Arguments of `echo`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Echo {
    /// What comes back.
    message: String,
}

/// Arguments of `slow`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Slow {
    /// How long the call takes in milliseconds, at most 60000.
    millis: u64,
}

/// Arguments of `stream`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Stream {
    /// How many notifications come before the result, at most 10000.
    events: u32,
    /// Pause before each in milliseconds, at most 60000.
    interval_ms: u64,
    /// The form of the credential in each notification; absent: none.
    #[serde(default)]
    form: Option<Form>,
}

/// Arguments of `delete_everything`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeleteEverything {}

// Counts a call as abandoned if it is dropped before its end.
struct UnderWay(Option<Arc<Recorder>>);

// === impl ServerHandler for Tools ===

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_prompts().enable_resources();
        ServerConfig::new(capabilities.build())
            .with_server_info(Implementation::new("keyward-demo-upstream", env!("CARGO_PKG_VERSION")))
            .with_instructions("An upstream for demonstrations and tests. It gives its credential away when asked.")
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools().into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let result = match request.name.as_ref() {
            "echo" => {
                let echo: Echo = read(arguments)?;
                CallToolResult::success(vec![ContentBlock::text(echo.message)])
            }
            "delete_everything" => {
                let DeleteEverything {} = read(arguments)?;
                CallToolResult::success(vec![ContentBlock::text("everything is deleted")])
            }
            "leak" => {
                let leak = Leak::read(arguments.into()).map_err(|error| ErrorData::invalid_params(error, None))?;
                leak_result(&leak, &context).await?
            }
            "slow" => self.slow(read(arguments)?, &context).await?,
            "stream" => self.stream(read(arguments)?, &context).await?,
            other => return Err(ErrorData::invalid_params(format!("unknown tool: `{other}`"), None)),
        };
        Ok(result.into())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let argument = PromptArgument::new("name").with_description("Who is greeted").with_required(false);
        let prompt = Prompt::new(PROMPT, Some("A greeting"), Some(vec![argument]));
        Ok(ListPromptsResult::with_all_items(vec![prompt]))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        if request.name != PROMPT {
            return Err(ErrorData::invalid_params(format!("unknown prompt: `{}`", request.name), None));
        }
        let arguments = serde_json::to_value(request.arguments).unwrap_or_default();
        let name = arguments.get("name").and_then(Value::as_str).unwrap_or("world");
        let message = PromptMessage::new_text(Role::User, format!("Say hello to {name}."));
        Ok(GetPromptResult::new(vec![message]).into())
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let about = Resource::new(ABOUT_URI, "about").with_mime_type("text/plain");
        Ok(ListResourcesResult::with_all_items(vec![about]))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let leak = ResourceTemplate::new(format!("{LEAK_URI}{{form}}"), "leak").with_mime_type("text/plain");
        Ok(ListResourceTemplatesResult::with_all_items(vec![leak]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let form = request.uri.strip_prefix(LEAK_URI).and_then(|form| serde_json::from_value(form.into()).ok());
        let text = match form {
            Some(form) => {
                let form: Form = form;
                let credential = credential(&context)?;
                format!("received {} from you", in_sdk_answer(form, credential))
            }
            None if request.uri == ABOUT_URI => "Keyward's upstream for demonstrations and tests.".to_owned(),
            None => return Err(ErrorData::resource_not_found(format!("unknown resource: `{}`", request.uri), None)),
        };
        Ok(ReadResourceResult::new(vec![ResourceContents::text(text, request.uri)]).into())
    }
}

// === impl Tools ===

impl Tools {
    async fn slow(&self, slow: Slow, context: &RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
        let mut under_way = UnderWay(Some(Arc::clone(&self.recorder)));
        let millis = bounded("millis", slow.millis, MAX_MILLIS)?;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(millis)) => {}
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled", None)),
        }
        under_way.0 = None;
        Ok(CallToolResult::success(vec![ContentBlock::text(format!("waited {millis} ms"))]))
    }

    async fn stream(&self, stream: Stream, context: &RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
        let mut under_way = UnderWay(Some(Arc::clone(&self.recorder)));
        let events = bounded("events", stream.events, MAX_EVENTS)?;
        let interval = Duration::from_millis(bounded("interval_ms", stream.interval_ms, MAX_MILLIS)?);
        for number in 1..=events {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled", None)),
            }
            let mut message = format!("event {number} sent_unix_us {}", unix_us());
            if let Some(form) = stream.form {
                message.push_str(&format!(" received {} from you", in_sdk_answer(form, credential(context)?)));
            }
            notify(context, f64::from(number), message).await;
        }
        under_way.0 = None;
        Ok(CallToolResult::success(vec![ContentBlock::text(format!("sent {events} events"))]))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(recorder) = &self.0 {
            recorder.cancelled();
        }
    }
}

async fn leak_result(leak: &Leak, context: &RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
    let credential = credential(context)?;
    let written = in_sdk_answer(leak.form, credential);
    let said = format!("received {written} from you");
    let text = |text: &str| CallToolResult::success(vec![ContentBlock::text(text)]);
    Ok(match leak.carrier {
        Carrier::Text | Carrier::SseSplit | Carrier::TcpSplit | Carrier::Gzip | Carrier::Br | Carrier::Deflate => {
            text(&said)
        }
        Carrier::ToolError => CallToolResult::error(vec![ContentBlock::text(said)]),
        Carrier::StructuredContent => {
            let mut result = text("look into the structured content");
            result.structured_content = Some(json!({"request": {"headers": [{"name": "key", "value": said}]}}));
            result
        }
        Carrier::EmbeddedResource => {
            CallToolResult::success(vec![ContentBlock::embedded_text("upstream://request", said)])
        }
        Carrier::Blob => {
            let written = leak.form.write(&credential.secret, &credential.username);
            let before = [0xff, 0x00, 0x80].repeat(2).into_iter().chain([0xfe; 2].into_iter().take(shift(leak)));
            let bytes: Vec<u8> = before.chain(written.into_bytes()).chain([0x00, 0xfd, 0x7f]).collect();
            let blob = ResourceContents::blob(STANDARD.encode(bytes), "upstream://request.bin");
            CallToolResult::success(vec![ContentBlock::resource(blob)])
        }
        Carrier::Meta => {
            let mut meta = JsonObject::new();
            meta.insert("upstream.example/request".to_owned(), json!({"key": said}));
            let mut result = text("look into the metadata");
            result.meta = Some(MetaObject(meta));
            result
        }
        Carrier::ErrorMessage => return Err(ErrorData::new(ErrorCode::INTERNAL_ERROR, said, None)),
        Carrier::ErrorData => {
            return Err(ErrorData::new(ErrorCode::INTERNAL_ERROR, "upstream fault", Some(json!({"request": [said]}))));
        }
        Carrier::Notification => {
            if context.meta.get_progress_token().is_some() {
                notify(context, 1.0, said).await;
            }
            text("look at the notification")
        }
        Carrier::Log => {
            log(context, said).await;
            text("look at the log message")
        }
        Carrier::Large => text(FILLER_HERE),
        _ => text("look around the message"),
    })
}

fn shift(leak: &Leak) -> usize {
    usize::from(leak.alignment.unwrap_or_default())
}

// A client that is gone gets no notification, and that is no fault.
async fn notify(context: &RequestContext<RoleServer>, progress: f64, message: String) {
    match context.meta.get_progress_token() {
        Some(token) => {
            let progress = ProgressNotificationParam::new(token, progress).with_message(message);
            let _ = context.peer.notify_progress(progress).await;
        }
        None => log(context, message).await,
    }
}

#[expect(deprecated, reason = "log messages leave the protocol slowly; upstreams still send them")]
async fn log(context: &RequestContext<RoleServer>, message: String) {
    use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
    let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, message.into());
    let _ = context.peer.notify_logging_message(message).await;
}

fn credential(context: &RequestContext<RoleServer>) -> Result<&Presented, ErrorData> {
    let parts = context.extensions.get::<http::request::Parts>();
    let presented = parts.and_then(|parts| parts.extensions.get::<Presented>());
    presented.ok_or_else(|| ErrorData::internal_error("the request brought no credential", None))
}

fn read<T: DeserializeOwned>(arguments: JsonObject) -> Result<T, ErrorData> {
    serde_json::from_value(arguments.into())
        .map_err(|error| ErrorData::invalid_params(format!("arguments: {error}"), None))
}

fn bounded<T: PartialOrd + std::fmt::Display>(name: &str, value: T, most: T) -> Result<T, ErrorData> {
    if value > most {
        return Err(ErrorData::invalid_params(format!("`{name}` is over {most}"), None));
    }
    Ok(value)
}

fn unix_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros())
}

fn tools() -> Vec<Tool> {
    let deletes = ToolAnnotations::new().destructive(true);
    vec![
        Tool::new("echo", "Gives the message back", schema_for_type::<Echo>()),
        Tool::new("leak", "Gives the received credential away, where and as asked", schema_for_type::<Leak>()),
        Tool::new("delete_everything", "Says that it deleted everything", schema_for_type::<DeleteEverything>())
            .with_annotations(deletes),
        Tool::new("slow", "Answers after a while", schema_for_type::<Slow>()),
        Tool::new("stream", "Sends notifications, then a result", schema_for_type::<Stream>()),
    ]
}
