//! Queries and mutations of webhook endpoints.

use async_graphql::{Context, ID, InputObject, MaybeUndefined, Object, OneofObject, SimpleObject};
use entity::customer_event::EventType;
use entity::value::{WebhookId, WebhookUrl};
use entity::webhook::ChangeTypes;
use sea_orm::Iterable;
use secrecy::ExposeSecret;

use crate::error::{Error, ErrorCode, InputField};
use crate::graphql::context::{request_info, require_writer};
use crate::graphql::cursor::{Cursors, ListId};
use crate::graphql::inputs::{Violations, optional};
use crate::graphql::objects::{ChangeType, Webhook, WebhookConnection};
use crate::graphql::pagination::{PageArguments, list_complexity};
use crate::graphql::time::Time;
use crate::service::webhooks::endpoints::{EndpointChanges, EndpointWithSecret, NewEndpoint, StartOfDeliveries};
use crate::service::{Caller, Webhooks};

#[derive(Default)]
pub struct WebhookQuery;

#[Object]
impl WebhookQuery {
    /// Looks up a webhook endpoint. Returns null if the endpoint does not exist or the caller may not see it.
    async fn webhook(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Id of the endpoint, for example `wh_01h455vb4pex5vsknk084sn02q`.")] id: ID,
    ) -> Option<Result<Webhook, Error>> {
        Webhook::find(context, WebhookId::parse(&id)?).await.transpose()
    }

    /// Webhook endpoints of the calling operator, oldest first. An operator has at most five. With the platform key:
    /// the endpoints of all operators.
    #[graphql(complexity = "list_complexity(first, last, child_complexity)")]
    async fn webhooks(
        &self,
        context: &Context<'_>,
        #[graphql(
            desc = "Number of items from the start of the list, or after the cursor `after`: 1 to 100. Default: 20."
        )]
        first: Option<i32>,
        #[graphql(desc = "Return items after this cursor.")] after: Option<String>,
        #[graphql(
            desc = "Number of items from the end of the list, or before the cursor `before`: 1 to 100. Cannot be combined with `first`."
        )]
        last: Option<i32>,
        #[graphql(desc = "Return items before this cursor.")] before: Option<String>,
    ) -> Option<Result<WebhookConnection, Error>> {
        Some(WebhookConnection::load(context, PageArguments { first, after, last, before }).await)
    }
}

#[derive(Default)]
pub struct WebhookMutation;

#[Object]
impl WebhookMutation {
    /// Creates a webhook endpoint. The service delivers the changes to your customers to the endpoint's URL. An
    /// operator can have at most five endpoints. This mutation has no idempotency key: if the response is lost, wait 60
    /// seconds (with the platform key 6 minutes), look for the endpoint in `webhooks`, and call `rotateWebhookSecret`.
    async fn create_webhook(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The endpoint to create.")] input: CreateWebhookInput,
    ) -> Option<Result<CreateWebhookPayload, Error>> {
        Some(create_webhook(context, input).await)
    }

    /// Changes, enables or disables a webhook endpoint. Omitted fields stay as they are. When you enable an endpoint,
    /// deliveries continue after its `cursor`. If some of the changes after the cursor were already deleted from the
    /// feed, set `deliverFrom` too, and then read all customers, because the deleted changes are not delivered. Without
    /// `deliverFrom`, the service would disable the endpoint again.
    async fn update_webhook(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The endpoint and the changes to it.")] input: UpdateWebhookInput,
    ) -> Option<Result<UpdateWebhookPayload, Error>> {
        Some(update_webhook(context, input).await)
    }

    /// Gives a webhook endpoint a new secret. For the number of hours in `overlapHours`, deliveries are signed with
    /// both the new and the old secret. Replace the secret in your receiver during this time. Only the two newest
    /// secrets are valid. This mutation has no idempotency key: if the response is lost, call it again, and replace the
    /// secret in your receiver immediately, because deliveries are then no longer signed with the secret that it has.
    async fn rotate_webhook_secret(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The endpoint, and the time for which the old secret stays in use.")]
        input: RotateWebhookSecretInput,
    ) -> Option<Result<RotateWebhookSecretPayload, Error>> {
        Some(rotate_webhook_secret(context, &input).await)
    }

    /// Deletes a webhook endpoint. A delivery in progress may still arrive.
    async fn delete_webhook(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The endpoint to delete.")] input: DeleteWebhookInput,
    ) -> Option<Result<DeleteWebhookPayload, Error>> {
        Some(delete_webhook(context, &input).await)
    }
}

async fn create_webhook(context: &Context<'_>, input: CreateWebhookInput) -> Result<CreateWebhookPayload, Error> {
    let (services, caller) = require_writer(context)?;
    let endpoint = input.parse(caller, &services.webhooks, &Cursors::new(context, ListId::Changes))?;
    let EndpointWithSecret { row, secret } = services.webhooks.create(caller, request_info(context), endpoint).await?;
    Ok(CreateWebhookPayload { webhook: Webhook(row), secret: secret.expose_secret().to_owned() })
}

async fn update_webhook(context: &Context<'_>, input: UpdateWebhookInput) -> Result<UpdateWebhookPayload, Error> {
    let (services, caller) = require_writer(context)?;
    let id = WebhookId::parse_or_unknown(&input.id);
    let changes = input.parse(&services.webhooks, &Cursors::new(context, ListId::Changes))?;
    let row = services.webhooks.update(caller, request_info(context), id, changes).await?;
    Ok(UpdateWebhookPayload { webhook: Webhook(row) })
}

async fn rotate_webhook_secret(
    context: &Context<'_>,
    input: &RotateWebhookSecretInput,
) -> Result<RotateWebhookSecretPayload, Error> {
    let (services, caller) = require_writer(context)?;
    let id = WebhookId::parse_or_unknown(&input.id);
    let EndpointWithSecret { row, secret } =
        services.webhooks.rotate_secret(caller, request_info(context), id, input.overlap_hours).await?;
    Ok(RotateWebhookSecretPayload { webhook: Webhook(row), secret: secret.expose_secret().to_owned() })
}

async fn delete_webhook(context: &Context<'_>, input: &DeleteWebhookInput) -> Result<DeleteWebhookPayload, Error> {
    let (services, caller) = require_writer(context)?;
    let id = WebhookId::parse_or_unknown(&input.id);
    services.webhooks.delete(caller, request_info(context), id).await?;
    Ok(DeleteWebhookPayload { webhook_id: id.to_string().into() })
}

/// Returns the types without repetitions. Rejects an empty list.
fn parse_types(types: Vec<ChangeType>, violations: &mut Violations) -> Option<ChangeTypes> {
    let types: Vec<EventType> = types.into_iter().map(Into::into).collect();
    if types.is_empty() {
        violations.argument(InputField::Types, "`types` must not be empty. Null means all types.");
        return None;
    }
    let is_given = |r#type: &EventType| types.contains(r#type);
    Some(ChangeTypes(EventType::iter().filter(is_given).collect()))
}

/// Position in the `changes` feed. Set exactly one field.
#[derive(OneofObject)]
enum WebhookStart {
    /// Cursor from `changes`, `viewer.changesCursor` or `Webhook.cursor`. The changes after the cursor are delivered.
    /// Not available with the platform key.
    Cursor(String),
    /// A time. The changes since this time are delivered, perhaps with some earlier ones. The request fails with
    /// `CURSOR_EXPIRED` if changes since this time may have been deleted.
    Time(Time),
}

impl WebhookStart {
    fn parse(self, cursors: &Cursors, violations: &mut Violations) -> Option<StartOfDeliveries> {
        match self {
            Self::Time(time) => violations.time(InputField::DeliverFromTime, Some(time)).map(StartOfDeliveries::From),
            Self::Cursor(cursor) => {
                let note = "`cursor` must come from the `changes` feed, read with a key of this operator. With the \
                            platform key, use `time`.";
                let position =
                    violations.require(cursors.decode_feed_position(&cursor), InputField::DeliverFromCursor, note);
                position.map(StartOfDeliveries::After)
            }
        }
    }
}

/// Input of `createWebhook`.
#[derive(InputObject)]
struct CreateWebhookInput {
    /// URL to send deliveries to, at most 2,000 characters after percent-encoding. The URL must start with `https://`
    /// (in sandbox, `http://` is allowed too) and must not contain a user name, a password or a fragment. The host must
    /// not be `localhost` or an IP address that is not reachable from the internet (in sandbox, the
    /// `VIVAMO_WEBHOOK_NETWORKS` setting can allow them). The addresses of a host name are checked at each delivery:
    /// see `FORBIDDEN_ADDRESS`.
    url: String,
    /// Types of the changes to deliver, at least one. Default: all types, including types that are added later.
    types: Option<Vec<ChangeType>>,
    /// Position in the `changes` feed at which deliveries start. Default: the end of the feed, so only later changes
    /// are delivered.
    deliver_from: Option<WebhookStart>,
    /// Id of the operator that the endpoint is for. Required with the platform key. Not available with other keys.
    operator_id: Option<ID>,
}

impl CreateWebhookInput {
    fn parse(self, caller: &Caller, endpoints: &Webhooks, cursors: &Cursors) -> Result<NewEndpoint, Error> {
        let Self { url, types, deliver_from, operator_id } = self;
        let mut violations = Violations::default();
        let operator = violations.operator_id(
            caller,
            operator_id,
            "Omit `operatorId`: an operator's key creates endpoints of that operator only.",
            "With the platform key, `operatorId` must name the operator of the endpoint.",
        );
        let types = types.and_then(|types| parse_types(types, &mut violations));
        let deliver_from = deliver_from.and_then(|start| start.parse(cursors, &mut violations));
        let url = violations.value(ErrorCode::InvalidUrl, InputField::Url, WebhookUrl::parse(&url));
        violations.check(url.as_ref().map_or(Ok(()), |url| endpoints.check_url(url)));
        let url = violations.finish_parsed(url)?;
        Ok(NewEndpoint { operator, url, types, deliver_from })
    }
}

/// The result of `createWebhook`.
#[derive(SimpleObject)]
struct CreateWebhookPayload {
    /// The new endpoint.
    webhook: Webhook,
    /// The secret with which the service signs the deliveries, for example
    /// `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=`. The secret is shown only here, so store it safely.
    secret: String,
}

/// Input of `updateWebhook`.
#[derive(InputObject)]
struct UpdateWebhookInput {
    /// Id of the endpoint, for example `wh_01h455vb4pex5vsknk084sn02q`.
    id: ID,
    /// New URL, with the same rules as in `createWebhook`. Cannot be null. If the endpoint is enabled, undelivered
    /// changes are sent to the new URL immediately.
    url: MaybeUndefined<String>,
    /// Types of changes to deliver from now on, at least one. Null means all types.
    types: MaybeUndefined<Vec<ChangeType>>,
    /// Position in the `changes` feed at which deliveries continue. If omitted or null, deliveries continue after the
    /// endpoint's `cursor`. An earlier position delivers changes again, and a later position skips changes.
    deliver_from: Option<WebhookStart>,
    /// True enables the endpoint, false disables it. Cannot be null.
    enabled: MaybeUndefined<bool>,
}

impl UpdateWebhookInput {
    fn parse(self, endpoints: &Webhooks, cursors: &Cursors) -> Result<EndpointChanges, Error> {
        let mut violations = Violations::default();
        let url = violations.not_null(ErrorCode::InvalidUrl, InputField::Url, self.url, WebhookUrl::parse);
        violations.check(url.as_ref().map_or(Ok(()), |url| endpoints.check_url(url)));
        let types = optional(self.types, |types| parse_types(types, &mut violations));
        let deliver_from = self.deliver_from.and_then(|start| start.parse(cursors, &mut violations));
        if self.enabled.is_null() {
            let note = "`enabled` cannot be null. Omit it to keep the current state.";
            violations.argument(InputField::Enabled, note);
        }
        violations.finish(EndpointChanges { url, types, is_enabled: self.enabled.take(), deliver_from })
    }
}

/// The result of `updateWebhook`.
#[derive(SimpleObject)]
struct UpdateWebhookPayload {
    /// The changed endpoint.
    webhook: Webhook,
}

/// Input of `rotateWebhookSecret`.
#[derive(InputObject)]
struct RotateWebhookSecretInput {
    /// Id of the endpoint, for example `wh_01h455vb4pex5vsknk084sn02q`.
    id: ID,
    /// Number of hours, 0 to 168, for which deliveries are also signed with the old secret. Use 0 if the old secret has
    /// leaked.
    #[graphql(default = 24)]
    overlap_hours: i32,
}

/// The result of `rotateWebhookSecret`.
#[derive(SimpleObject)]
struct RotateWebhookSecretPayload {
    /// The endpoint.
    webhook: Webhook,
    /// The new secret. The secret is shown only here, so store it safely.
    secret: String,
}

/// Input of `deleteWebhook`.
#[derive(InputObject)]
struct DeleteWebhookInput {
    /// Id of the endpoint, for example `wh_01h455vb4pex5vsknk084sn02q`.
    id: ID,
}

/// The result of `deleteWebhook`.
#[derive(SimpleObject)]
struct DeleteWebhookPayload {
    /// Id of the endpoint that was deleted.
    webhook_id: ID,
}
