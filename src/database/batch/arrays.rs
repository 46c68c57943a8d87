//! Lists of values, as PostgreSQL takes them.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{ArrayType, Nullable, Value, ValueType, Values};
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::{PgArguments, PgHasArrayType};
use sea_orm::sqlx::{Arguments, Encode, IntoArguments, Postgres, Type};
use sea_query_sqlx::SqlxValues;
use uuid::Uuid;

/// Rows of values as a list for each column.
pub(in crate::database) fn lists<R: IntoIterator<Item = Value>>(rows: Vec<R>) -> Vec<Value> {
    let mut columns: Vec<Vec<Value>> = Vec::new();
    for row in rows {
        for (number, value) in row.into_iter().enumerate() {
            match columns.get_mut(number) {
                Some(column) => column.push(value),
                None => columns.push(vec![value]),
            }
        }
    }
    let list = |values: Vec<Value>| {
        let kind = values.first().map_or(ArrayType::String, Value::array_type);
        Value::Array(kind, Some(Box::new(values)))
    };
    columns.into_iter().map(list).collect()
}

/// What the driver sends: lists too, which SeaQuery cannot send with a null in them.
pub(in crate::database) fn arguments(values: Values) -> Result<PgArguments, BoxDynError> {
    if !values.0.iter().any(|value| matches!(value, Value::Array(..))) {
        return Ok(IntoArguments::<Postgres>::into_arguments(SqlxValues(values)));
    }
    let mut arguments = PgArguments::default();
    for value in values.0 {
        let kind = if let Value::Array(kind, _) = &value { kind.clone() } else { value.array_type() };
        let (_, add) =
            KINDS.iter().find(|(of, _)| of() == kind).ok_or("a kind of value of which there are no lists")?;
        add(&mut arguments, value)?;
    }
    Ok(arguments)
}

type Add = fn(&mut PgArguments, Value) -> Result<(), BoxDynError>;

/// What the columns of tables hold that are written in lists.
const KINDS: [(fn() -> ArrayType, Add); 7] = [
    (String::array_type, add::<String>),
    (Uuid::array_type, add::<Uuid>),
    (DateTime::<Utc>::array_type, add::<DateTime<Utc>>),
    (i32::array_type, add::<i32>),
    (i16::array_type, add::<i16>),
    (serde_json::Value::array_type, add::<serde_json::Value>),
    (<Vec<u8> as ValueType>::array_type, add::<Vec<u8>>),
];

fn add<T>(arguments: &mut PgArguments, value: Value) -> Result<(), BoxDynError>
where
    T: ValueType + Nullable + for<'q> Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType + Send,
{
    let read = <Option<T> as ValueType>::try_from;
    let Value::Array(_, values) = value else { return arguments.add(read(value)?) };
    let values: Result<Vec<_>, _> = values.into_iter().flat_map(|values| *values).map(read).collect();
    arguments.add(values?)
}
