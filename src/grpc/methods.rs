//! The methods of the API, as its descriptors say.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use prost_types::MethodOptions;
use prost_types::method_options::IdempotencyLevel;

use super::pb;

/// `hookward.v1.Service/Method`, and whether it changes something.
pub(super) type Methods = BTreeMap<Arc<str>, bool>;

/// All of them. One that does not say that it has no side effects changes
/// something.
pub(super) fn methods() -> Methods {
    let files = prost_types::FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET);
    let files = files.expect("the build encodes its own descriptors").file;
    let mut methods = BTreeMap::new();
    for file in &files {
        for service in &file.service {
            for method in &service.method {
                let level = method.options.as_ref().map(MethodOptions::idempotency_level);
                let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                methods.insert(name.into(), level != Some(IdempotencyLevel::NoSideEffects));
            }
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_change_something_unless_they_say_that_they_do_not() {
        let methods = methods();
        let changes = |method: &str| methods[&*format!("hookward.v1.{method}")];
        assert!(methods.keys().all(|name| name.starts_with("hookward.v1.")));
        assert!(changes("SubscriptionService/PauseSubscription"));
        assert!(changes("EventService/PublishEvents"));
        assert!(!changes("EventService/GetEvent"));
        for (method, changes) in &methods {
            let name = method.rsplit_once('/').expect("service and method").1;
            let reads = name.starts_with("Get") || name.starts_with("List");
            assert_eq!(*changes, !reads, "{method}");
        }
    }
}
