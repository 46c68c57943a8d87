//! Encodes values for PostgreSQL, including arrays that contain nulls.
//!
//! A batch sends one array per column. SeaQuery can represent an array that contains a null, but panics when it encodes
//! such an array.

use std::iter;

use chrono::{DateTime, NaiveDate, Utc};
use sea_orm::sea_query::{ArrayType, Nullable, Value, ValueType, Values};
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::{PgArguments, PgHasArrayType};
use sea_orm::sqlx::{self, Arguments, Encode, IntoArguments, Postgres, Type};
use sea_query_sqlx::SqlxValues;
use uuid::Uuid;

/// Turns rows of values into one array per column. All rows have the same number of values.
pub(super) fn into_arrays(rows: Vec<impl IntoIterator<Item = Value>>) -> Vec<Value> {
    let mut rows: Vec<_> = rows.into_iter().map(IntoIterator::into_iter).collect();
    let next_column = || {
        let values = rows.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>()?;
        Some(Value::Array(values.first()?.array_type(), Some(Box::new(values))))
    };
    iter::from_fn(next_column).collect()
}

/// Returns true if [`encode_for_postgres`] can encode an array of such values.
pub(super) fn fits_in_array(value: &Value) -> bool {
    !matches!(value, Value::Array(..) | Value::BigUnsigned(_)) && add_for(value.array_type()).is_ok()
}

/// Encodes the values of a statement. Uses SeaQuery's encoding if no value is an array.
pub(super) fn encode_for_postgres(values: Values) -> Result<PgArguments, sqlx::Error> {
    if !values.0.iter().any(|value| matches!(value, Value::Array(..))) {
        return Ok(IntoArguments::<Postgres>::into_arguments(SqlxValues(values)));
    }
    let mut arguments = PgArguments::default();
    for value in values.0 {
        add_for(value.array_type()).and_then(|add| add(&mut arguments, value)).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

type Add = fn(&mut PgArguments, Value) -> Result<(), BoxDynError>;

/// Returns the function that encodes a value of this type, or an array of such values unless they are unsigned.
#[expect(clippy::wildcard_enum_match_arm, reason = "debug assertions check the values of batches")]
fn add_for(array_type: ArrayType) -> Result<Add, BoxDynError> {
    Ok(match array_type {
        ArrayType::Bool => add::<bool>,
        ArrayType::SmallInt => add::<i16>,
        ArrayType::Int => add::<i32>,
        ArrayType::BigInt => add::<i64>,
        ArrayType::BigUnsigned => add_unsigned,
        ArrayType::String => add::<String>,
        ArrayType::Bytes => add::<Vec<u8>>,
        ArrayType::Json => add::<serde_json::Value>,
        ArrayType::ChronoDate => add::<NaiveDate>,
        ArrayType::ChronoDateTimeUtc => add::<DateTime<Utc>>,
        ArrayType::Uuid => add::<Uuid>,
        _ => return Err(format!("{array_type:?} cannot be sent in an array").into()),
    })
}

/// Adds an unsigned number, such as the limit of a query. PostgreSQL has no unsigned types.
fn add_unsigned(arguments: &mut PgArguments, value: Value) -> Result<(), BoxDynError> {
    let value = <Option<u64> as ValueType>::try_from(value)?;
    arguments.add(value.map(<i64 as TryFrom<u64>>::try_from).transpose()?)
}

fn add<T>(arguments: &mut PgArguments, value: Value) -> Result<(), BoxDynError>
where
    T: ValueType + Nullable + for<'q> Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType + Send,
{
    let unwrap = <Option<T> as ValueType>::try_from;
    let Value::Array(_, values) = value else { return arguments.add(unwrap(value)?) };
    let values: Result<Vec<_>, _> = values.into_iter().flat_map(|values| *values).map(unwrap).collect();
    arguments.add(values?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_may_contain_nulls() {
        let rows = vec![vec![Value::from(1), Value::from("a")], vec![Value::Int(None), Value::String(None)]];
        let encoded = encode_for_postgres(Values(into_arrays(rows))).unwrap();
        assert_eq!(encoded.len(), 2);
    }

    #[test]
    fn an_unsigned_number_cannot_be_in_an_array() {
        assert!(encode_for_postgres(Values(into_arrays(vec![vec![Value::from(1_u64)]]))).is_err());
        assert!(!fits_in_array(&Value::from(1_u64)) && fits_in_array(&Value::from(1_i64)));
    }
}
