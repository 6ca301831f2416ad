{#-
  Lists of a window's last few moments, a row per transaction: their amounts, and their transactions with the moment
  when each became known as fraud, NULL where that did not happen by the end of the data. They are made of transactions alone
  and apart from the timeline, whose condensed past (built_through) knows no single moments.
-#}

{#- What an entity's features look back at: amounts or outcomes -> the feature that says how far. -#}
{%- macro last_of(features) -%}
  {%- set found = {} -%}
  {%- for feature in features if aggregate(feature)['last'] -%}
    {%- do found.setdefault(aggregate(feature)['last'], feature) -%}
  {%- endfor -%}
  {{- return(found) -}}
{%- endmacro -%}

{%- macro lookback(keys, last) -%}
{%- set amounts, outcomes = last.get('amounts'), last.get('outcomes') -%}
attempts as (

  select
    transactions.transaction_id,
    transactions.event_time,
    {% for key in keys %}transactions.{{ key }}, {% endfor %}
    transactions.amount_minor
    {%- if outcomes %},
    reports.known_at
    {%- endif %}
  from {{ ref('stg_transactions') }} as transactions
  {%- if outcomes %}
  left join {{ ref('stg_fraud_reports') }} as reports on transactions.transaction_id = reports.transaction_id
  {%- endif %}
  where {% for key in keys %}transactions.{{ key }} is not null{{ ' and ' if not loop.last }}{% endfor %}
    {%- if built_through() is not none %}
    and transactions.event_time >= {{ window_start(built_through(), lookback_reach(last)) }}
    and (transactions.event_time >= {{ built_through() }} or transactions.event_time < {{ last_end(last) }})
    and {{ is_asked_for(keys, 'transactions.') }}
  qualify transactions.event_time >= {{ first_end(last) }}
    or dense_rank() over (
      partition by {% for key in keys %}transactions.{{ key }}, {% endfor %}transactions.event_time >= {{ first_end(last) }}
      order by transactions.event_time desc
    ) <= {{ last.values() | map(attribute='last') | max }}
    {%- endif %}

),

last_attempts as (

  select
    *
    {%- if amounts %},
    list(struct_pack(moment := event_time, amount := amount_minor)) {{ last_moments(keys, amounts['last'], false) }} as before
    {%- endif %}
    {%- if outcomes %},
    list(struct_pack(moment := event_time, known_at := known_at, amount := amount_minor)) {{ last_moments(keys, outcomes['last'], true) }} as until
    {%- endif %}
  from attempts

),

disputable as (

  select
    *
    {%- if outcomes %},
    {{ at_offset(keys, 'until', outcomes['offset_ms']) }} as then_known
    {%- endif %}
  from last_attempts

),

lookback as (

  select
    transaction_id
    {%- if amounts %},
    [row.amount for row in before if row.moment >= {{ window_start('event_time', amounts['window_ms']) }}] as last_amounts
    {%- endif %}
    {%- if outcomes %},
    [row for row in then_known if row.moment >= {{ window_start('event_time', outcomes['window_ms'] + outcomes['offset_ms']) }}]
      as last_outcomes
    {%- endif %}
  from disputable
  where {{ is_new_row('event_time') }}

),
{%- endmacro -%}

{#- Where the first and the last of the new rows' windows end: before the first the last few moments are enough. -#}
{%- macro first_end(last) -%}
  {{- return(window_end(built_through(), last.values() | map(attribute='offset_ms') | max)) -}}
{%- endmacro -%}

{%- macro last_end(last) -%}
  {{- return(window_end('(select last_moment from last_row)', last.values() | map(attribute='offset_ms') | min)) -}}
{%- endmacro -%}

{%- macro window_end(moment, offset_ms) -%}
  {{- return(window_start(moment, offset_ms) if offset_ms else moment) -}}
{%- endmacro -%}

{%- macro lookback_reach(last) -%}
  {%- set reach = [] -%}
  {%- for feature in last.values() -%}
    {%- do reach.append(feature['window_ms'] + feature['offset_ms']) -%}
  {%- endfor -%}
  {{- return(reach | max) -}}
{%- endmacro -%}
