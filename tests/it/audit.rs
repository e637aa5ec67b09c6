//! Promise: every change, every read of payloads or response bodies and every refused call
//! of either leaves exactly one entry in the audit log, or does not happen. The methods are
//! those of the descriptors: one that is not told here how to succeed fails.

use std::collections::BTreeMap;

use hookward::grpc::pb;
use pb::audit_service_client::AuditServiceClient;
use prost::Message;
use prost_types::method_options::IdempotencyLevel;
use prost_types::{DescriptorProto, FileDescriptorSet, MethodOptions};
use tonic::Code;

use super::audit_calls::World;
use super::authentication::guarded;
use crate::harness::audit::{Line, entries};
use crate::harness::caller::{api_key, hookward};
use crate::harness::client::event;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::rpc;
use crate::harness::service::Service;

on_both_engines!(
    each_change_and_each_payload_read_leaves_exactly_one_entry,
    each_refused_call_leaves_exactly_one_entry,
    a_flood_of_refused_calls_is_a_few_entries_and_their_number,
    calls_beyond_the_limit_of_failures_leave_no_entry,
    events_and_entries_say_who_it_was,
);

/// A method of the API.
struct Method {
    /// Without the package.
    name: String,
    changes: bool,
    /// Numbers of fields of its request.
    organization: u32,
    includes: Option<u32>,
}

impl Method {
    /// A request with nothing but an organization, that asks for whatever can be asked for.
    fn least(&self) -> Vec<u8> {
        let mut message = Vec::new();
        prost::encoding::string::encode(self.organization, &"clinic".to_owned(), &mut message);
        if let Some(number) = self.includes {
            prost::encoding::bool::encode(number, &true, &mut message);
        }
        message
    }

    /// Whether calls of it are on record that are let in, if they ask for what they can.
    fn is_audited(&self) -> bool {
        self.changes || self.includes.is_some()
    }
}

fn described() -> Vec<Method> {
    let files = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET);
    let files = files.expect("the build encodes it").file;
    let messages: BTreeMap<String, &DescriptorProto> = files
        .iter()
        .flat_map(|file| {
            file.message_type.iter().map(|one| (format!(".{}.{}", file.package(), one.name()), one))
        })
        .collect();
    let mut methods = Vec::new();
    for service in files.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            let request = messages[method.input_type()];
            let number = |is: &dyn Fn(&str) -> bool| {
                let field = request.field.iter().find(|field| is(field.name()));
                field.map(|field| u32::try_from(field.number()).expect("numbers are positive"))
            };
            let reads = IdempotencyLevel::NoSideEffects;
            let level = method.options.as_ref().map(MethodOptions::idempotency_level);
            methods.push(Method {
                name: format!("{}/{}", service.name(), method.name()),
                changes: level != Some(reads),
                organization: number(&|name| name == "organization_id").expect("it has one"),
                includes: number(&|name| name.starts_with("include_")),
            });
        }
    }
    methods
}

async fn each_change_and_each_payload_read_leaves_exactly_one_entry(engine: Engine) {
    let service = Service::start(engine.clone()).await;
    let world = World::new(&service).await;
    let of = |method: &Method| -> Vec<Line> {
        let mut entries = entries(&engine, "clinic");
        entries.retain(|entry| entry.method == method.name);
        entries
    };
    for method in described() {
        let name = &method.name;
        let asks: &[bool] = if method.includes.is_some() { &[false, true] } else { &[false] };
        for asks_for_payload in asks {
            let before = of(&method).len();
            let objects = world.succeed(name, *asks_for_payload).await;
            let after = of(&method);
            // Of events, their own rows say who published them.
            let is_recorded =
                *asks_for_payload || method.changes && !name.ends_with("PublishEvents");
            assert_eq!(after.len(), before + usize::from(is_recorded), "{name}: {after:?}");
            if is_recorded {
                let last = after.last().expect("counted");
                assert_eq!((&*last.code, last.calls), ("OK", 1), "{name}");
                assert_eq!(last.payload_read, *asks_for_payload, "{name}");
                assert_eq!(last.principal, "anyone", "{name}");
                assert!(last.peer.starts_with("127.0.0.1:"), "{name}: {last:?}");
                for object in objects {
                    assert!(last.objects.contains(&object), "{name}: {object} in {last:?}");
                }
            }
        }
    }
    // The API shows the same, page by page.
    let mut client = AuditServiceClient::new(service.channel());
    let mut request = pb::ListAuditEntriesRequest {
        organization_id: "clinic".into(),
        page_size: 7,
        ..<_>::default()
    };
    let mut shown = Vec::new();
    loop {
        let page = client.list_audit_entries(request.clone()).await.expect("it is readable");
        let page = page.into_inner();
        shown.extend(page.entries);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let methods = entries(&engine, "clinic").into_iter().map(|entry| entry.method);
    let also = shown.iter().rev().map(|entry| entry.method.trim_start_matches("hookward.v1."));
    assert!(methods.eq(also.map(str::to_owned)));
    assert!(shown.iter().rev().map(|entry| entry.sequence).eq(1..=shown.len() as u64));
}

/// Who called what and was answered how; and how often.
type Seen = BTreeMap<(String, String, String), usize>;

fn seen(engine: &Engine, organization: &str) -> Seen {
    let mut seen = Seen::new();
    for entry in entries(engine, organization) {
        if entry.method.contains('/') {
            *seen.entry((entry.credential, entry.method, entry.code)).or_default() += entry.calls;
        }
    }
    seen
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::Unauthenticated => "UNAUTHENTICATED",
        other => panic!("{other:?} was not expected"),
    }
}

async fn each_refused_call_leaves_exactly_one_entry(engine: Engine) {
    // Made before the start, so that none is asked whether it is known yet.
    let good = api_key(&engine, "clinic", &["admin"], &[]);
    let lacking = api_key(&engine, "clinic", &["bodies:read"], &[]);
    let foreign = api_key(&engine, "other", &["admin"], &[]);
    let forged = format!("{}_{}", id_of(&good), secret_of(&lacking));
    let mut service = guarded(&engine).await;
    let channel = service.channel();
    let (mut deployment, mut clinic) = (Seen::new(), Seen::new());
    for (last, method) in (2..).zip(described()) {
        // Of ten failures that an address may have in a second, each has two.
        let stranger = service.channel_from(last).await;
        let strangers = [
            (None, String::new()),
            (Some(&forged), id_of(&good)),
            (Some(&foreign), id_of(&foreign)),
        ];
        for (token, credential) in strangers {
            let told = told(&stranger, &method, token).await;
            assert_ne!(told, Code::Ok, "{}", method.name);
            deployment.insert((credential, method.name.clone(), name(told).to_owned()), 1);
        }
        let denied = told(&channel, &method, Some(&lacking)).await;
        assert_eq!(denied, Code::PermissionDenied, "{}", method.name);
        let key = (id_of(&lacking), method.name.clone(), name(denied).to_owned());
        clinic.insert(key, 1);
        let let_in = told(&channel, &method, Some(&good)).await;
        if method.is_audited() {
            clinic.insert((id_of(&good), method.name.clone(), name(let_in).to_owned()), 1);
        }
    }
    // Unauthenticated ones are of one kind, of which thirty a minute are told apart.
    let apart = |seen: &Seen| -> Seen {
        let apart = seen.iter().filter(|((_, _, code), _)| code != "UNAUTHENTICATED");
        apart.map(|(key, count)| (key.clone(), *count)).collect()
    };
    eventually("what was denied", async || {
        (apart(&seen(&engine, "*")) == apart(&deployment)).then_some(())
    })
    .await;
    eventually("what was let in", async || (seen(&engine, "clinic") == clinic).then_some(())).await;
    service.terminate();
    service.ends().await;
    // And no more.
    assert_eq!(apart(&seen(&engine, "*")), apart(&deployment));
    assert_eq!(seen(&engine, "clinic"), clinic);
    let strangers = entries(&engine, "*").into_iter().filter(|one| one.code == "UNAUTHENTICATED");
    let strangers: Vec<Line> = strangers.collect();
    assert_eq!(strangers.iter().map(|one| one.calls).sum::<usize>(), 2 * described().len());
    assert!(strangers.iter().all(|one| one.principal.is_empty()));
    let shown = strangers.iter().filter(|one| one.credential == id_of(&good)).count();
    assert!(10 < shown, "the key that was tried is named: {strangers:?}");
}

/// How a call with nothing but an organization is answered.
async fn told(
    channel: &tonic::transport::Channel,
    method: &Method,
    token: Option<&String>,
) -> Code {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let answer = rpc::call(channel, &method.name, method.least(), authorization.as_deref()).await;
    answer.err().map_or(Code::Ok, |status| status.code())
}

fn id_of(token: &str) -> String {
    token.rsplit_once('_').expect("id and secret").0.to_owned()
}

fn secret_of(token: &str) -> &str {
    token.rsplit_once('_').expect("id and secret").1
}

async fn a_flood_of_refused_calls_is_a_few_entries_and_their_number(engine: Engine) {
    const CALLS: usize = 300;
    let mut service = Service::start(engine.clone()).await;
    let clinic = service.organization("clinic");
    for _ in 0..CALLS {
        let refused = clinic.pause("sub_0000000000000").await.expect_err("there is none");
        assert_eq!(refused.code(), Code::NotFound);
    }
    service.terminate();
    service.ends().await;
    let told = entries(&engine, "clinic");
    assert_eq!(told.iter().map(|one| one.calls).sum::<usize>(), CALLS, "none is lost");
    // Thirty and a number a minute, and it may have been another minute in between.
    assert!((31..=62).contains(&told.len()), "{}", told.len());
    assert!(told.iter().all(|one| one.code == "NOT_FOUND" && one.principal == "anyone"));
}

async fn calls_beyond_the_limit_of_failures_leave_no_entry(engine: Engine) {
    let mut service = guarded(&engine).await;
    let stranger = service.channel_from(2).await;
    let mut pause = described();
    pause.retain(|method| method.name == "SubscriptionService/PauseSubscription");
    let mut usual = 0;
    for _ in 0..100 {
        match told(&stranger, &pause[0], None).await {
            Code::Unauthenticated => usual += 1,
            code => assert_eq!(code, Code::ResourceExhausted),
        }
    }
    assert!(usual < 100, "ten a second");
    service.terminate();
    service.ends().await;
    let told = entries(&engine, "*");
    assert_eq!(told.iter().map(|one| one.calls).sum::<usize>(), usual);
    assert!(told.iter().all(|one| one.code == "UNAUTHENTICATED"), "{told:?}");
}

async fn events_and_entries_say_who_it_was(engine: Engine) {
    let token = api_key(&engine, "clinic", &["events:publish", "events:read"], &[]);
    let (id, authorization) = (id_of(&token), format!("Bearer {token}"));
    let service = guarded(&engine).await;
    let channel = service.channel();
    let publish = pb::PublishEventsRequest {
        organization_id: "clinic".to_owned(),
        events: vec![pb::Event { id: "mine".to_owned(), ..event("booked", "{}") }],
    };
    let publish = publish.encode_to_vec();
    let method = "EventService/PublishEvents";
    rpc::call(&channel, method, publish, Some(&authorization)).await.expect("it is valid");
    let get = pb::GetEventRequest {
        organization_id: "clinic".to_owned(),
        event_id: "mine".to_owned(),
        include_payload: false,
    };
    let method = "EventService/GetEvent";
    let answer = rpc::call(&channel, method, get.encode_to_vec(), Some(&authorization)).await;
    let answer = pb::GetEventResponse::decode(answer.expect("it is there")).expect("an answer");
    assert_eq!(answer.event.expect("it is there").publisher, id);
    assert_eq!(entries(&engine, "clinic"), [], "neither is a line of the log");

    hookward(&engine, &["api-key", "revoke", &id]);
    let told = entries(&engine, "*");
    let told: Vec<_> = told.iter().map(|one| (&*one.method, &one.objects[..])).collect();
    let (made, revoked) = ([id.clone(), "clinic".to_owned()], [id]);
    assert_eq!(told, [("api-key create", &made[..]), ("api-key revoke", &revoked[..])]);
}
