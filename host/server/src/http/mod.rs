//! The HTTP API: every route as a row of one table ([`routes`]), every request on one way ([`dispatch`]), every failure one document ([`problem`]).
//!
//! [`connection`] accepts connections and sets their limits, [`tls`] encrypts them; handlers are in [`system`], [`tenants`], [`components`], [`jobs`] and [`looks`].
//! Handlers decide nothing: they read a request, ask the parts of the service, and write the answer.

pub mod call;
mod components;
pub mod connection;
pub mod dispatch;
mod jobs;
mod looks;
pub mod metrics;
pub mod openapi;
pub mod problem;
pub mod route;
pub mod service;
mod sse;
mod system;
mod tenants;
pub mod tls;

use route::Route;

/// Every route there is.
pub fn routes() -> Vec<Route> {
    [system::routes(), tenants::routes(), components::routes(), jobs::routes(), looks::routes()].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::catalogue::objects::Scope;

    #[test]
    fn operations_have_names_of_their_own() {
        let routes = routes();
        let names: BTreeSet<&str> = routes.iter().map(|route| route.operation).collect();
        assert_eq!(names.len(), routes.len());
    }

    /// Nothing is open but what a load balancer and a new client must see.
    #[test]
    fn every_route_but_three_needs_a_scope_and_what_changes_something_needs_more_than_view() {
        let routes = routes();
        let open: Vec<&str> = routes.iter().filter(|route| route.scope.is_none()).map(|route| route.path).collect();
        assert_eq!(open, ["/healthz", "/readyz", "/v1/openapi.json"]);
        for route in routes.iter().filter(|route| route.changes() && route.operation != "validate-job") {
            assert!(route.scope > Some(Scope::View), "{}", route.operation);
        }
    }

    #[test]
    fn the_document_describes_every_route_and_every_reference_leads_somewhere() {
        let document = openapi::document(&routes());
        for route in routes() {
            let operation = &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
            assert_eq!(operation["operationId"], route.operation);
        }
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
