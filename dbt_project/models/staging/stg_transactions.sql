with transactions as (

  select * from {{ source('ingest', 'transactions') }}

),

angles as (

  select
    *,
    {{ half_angle('latitude') }} as half_latitude,
    {{ half_angle('longitude') }} as half_longitude,
    {{ half_angle('home_latitude') }} as half_home_latitude,
    {{ half_angle('home_longitude') }} as half_home_longitude
  from transactions

),

waves as (

  select
    *
    {%- for angle in ['latitude', 'longitude', 'home_latitude', 'home_longitude'] %},
    {{ sine('half_' ~ angle) }} as sine_half_{{ angle }},
    {{ cosine('half_' ~ angle) }} as cosine_half_{{ angle }}
    {%- endfor %}
  from angles

),

circles as (

  select
    *
    {%- for angle in ['latitude', 'longitude', 'home_latitude', 'home_longitude'] %},
    2e0 * sine_half_{{ angle }} * cosine_half_{{ angle }} as sine_{{ angle }},
    1e0 - 2e0 * sine_half_{{ angle }} * sine_half_{{ angle }} as cosine_{{ angle }}
    {%- endfor %}
  from waves

),

final as (

  select
    transaction_id,
    event_time,
    card_id,
    customer_id,
    device_id,
    ip_id,
    merchant_id,
    amount_minor,
    currency,
    channel,
    category,
    card_country,
    merchant_country,
    case when latitude is not null and longitude is not null then
      struct_pack(
        event_time := event_time,
        latitude := latitude,
        longitude := longitude,
        x := cosine_latitude * cosine_longitude,
        y := cosine_latitude * sine_longitude,
        z := sine_latitude
      )
    end as place,
    case when home_latitude is not null and home_longitude is not null then
      struct_pack(
        x := cosine_home_latitude * cosine_home_longitude,
        y := cosine_home_latitude * sine_home_longitude,
        z := sine_home_latitude
      )
    end as home
    {%- for extra in var('extras') %},
    {{ extra['name'] }}
    {%- endfor %}
  from circles

)

select * from final
