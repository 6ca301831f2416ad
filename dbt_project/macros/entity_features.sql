{#-
  One entity's features, a row per transaction that has the entity. The timeline holds both streams in the
  order in which they became known: transactions at event_time, fraud reports at known_at.
-#}
{%- macro entity_features(entity) -%}
{%- set keys = var('entities')[entity] -%}
{%- set features = features_of_entity(entity) -%}
{%- set plan = plan_of(features) -%}
{%- set columns = columns_read(keys, features) -%}
{%- set last = last_of(features) -%}
{%- set has_reports = features | selectattr('stream', 'defined') | list | length > 0 -%}

with streams {{ adapter.dispatch('read_anew')() }} (

  select
    transaction_id,
    event_time,
    event_time as moment,
    {{ columns | join(', ') }},
    place,
    cast(null as integer) as reported
  from {{ ref('stg_transactions') }}
  where {% for key in keys %}{{ key }} is not null{{ ' and ' if not loop.last }}{% endfor %}

  {%- if has_reports %}

  union all

  select
    cast(null as varchar) as transaction_id,
    cast(null as bigint) as event_time,
    known_at as moment,
    {% for column in columns -%}
      {{ column if column in keys else 'null as ' ~ column }},
    {% endfor -%}
    null as place,
    1 as reported
  from {{ ref('stg_fraud_reports') }}
  where {% for key in keys %}{{ key }} is not null{{ ' and ' if not loop.last }}{% endfor %}
  {%- endif %}

),

timeline {{ adapter.dispatch('read_anew')() }} (

  select
    transaction_id,
    event_time,
    moment,
    {{ keys | join(', ') }},
    place
    {%- for of in plan['distinct'] if of not in keys %},
    {{ of }}
    {%- endfor %}
    {%- for name, expression in plan['totals'].items() %},
    {{ expression }} as {{ name }}
    {%- endfor %}
    {%- for name, of in plan['facts'].items() %},
    {{ of[1] }} as {{ name }}
    {%- endfor %}
  from streams

),
{% if built_through() is not none %}
{{ recent(keys, plan) }}
{% endif %}
neighbours as (

  select
    *
    {%- for of in plan['distinct'] %},
    lag(moment) {{ occurrences(keys, of) }} as previous_{{ of }},
    lead(moment) {{ occurrences(keys, of) }} as next_{{ of }}
    {%- endfor %}
  from {{ 'timeline' if built_through() is none else 'recent' }}

),
{% if built_through() is not none %}
{{ condensed(keys, plan) }}
{% endif %}
running_totals as (

  select
    transaction_id,
    moment,
    {{ keys | join(', ') }},
    place
    {%- for name in plan['totals'] %},
    {{ running_total(name, keys, name.startswith('count_')) }} as {{ name }}
    {%- endfor %}
    {%- for name, expression in plan['presence'].items() %},
    {{ running_total(expression if built_through() is none else name, keys, true) }} as {{ name }}
    {%- endfor %}
    {%- for name, of in plan['facts'].items() %},
    {{ of[0] }}({{ name }}) {{ within(keys, of[2]) if of[2] else running(keys) }} as {{ name }}
    {%- endfor %}
  from {{ 'neighbours' if built_through() is none else 'condensed' }}

),

{% if last -%}
{{ lookback(keys, last) }}
{%- endif %}
looked_up as (

  select
    *
    {%- for window_ms, names in plan['looked_up'].items() %},
    {{ at_start(keys, names, window_ms) }} as before_{{ window_ms }}
    {%- endfor %}
  from running_totals

),

transaction_rows as (

  select
    *,
    moment as event_time
  from looked_up
  {%- if last %}
  left join lookback using (transaction_id)
  {%- endif %}
  where transaction_id is not null

),

final as (

  select
    transaction_id,
    event_time,
    {%- for feature in features %}
    {{ aggregate(feature)['value'] }} as {{ feature['name'] }}{{ ',' if not loop.last }}
    {%- endfor %}
  from transaction_rows

)

select * from final
{%- endmacro -%}

{#-
  What an entity's features need together. totals: name -> the integer of a row that is summed; facts; distinct: columns
  whose neighbours are needed, and presence: name -> what is summed of them, presence_of:
  column -> these names; looked_up: window -> the totals that are needed at its start.
  A value is present from an occurrence whose predecessor has left the window until one that leaves it before its
  successor comes, so that different values are counted by two running totals, of starts and of ends.
-#}
{%- macro plan_of(features) -%}
  {%- set plan = {'totals': {}, 'facts': {}, 'distinct': [], 'presence': {}, 'presence_of': {}, 'looked_up': {}} -%}
  {%- for feature in features -%}
    {%- set needs, window_ms = aggregate(feature), feature['window_ms'] -%}
    {%- set names = needs['totals'] | list -%}
    {%- do plan['totals'].update(needs['totals']) -%}
    {%- do plan['facts'].update(needs['facts']) -%}
    {%- if needs['distinct'] -%}
      {%- set of = needs['distinct'] -%}
      {%- do plan['distinct'].append(of) if of not in plan['distinct'] -%}
      {%- do plan['presence'].update({starts(of, window_ms): is_start(of, window_ms), ends(of, window_ms): is_end(of, window_ms)}) -%}
      {%- do plan['presence_of'].setdefault(of, []).extend([starts(of, window_ms), ends(of, window_ms)]) -%}
      {%- do names.append(ends(of, window_ms)) -%}
    {%- endif -%}
    {%- if window_ms and names -%}
      {%- for begin in [window_ms + feature['offset_ms'], feature['offset_ms']] if begin -%}
        {%- set known = plan['looked_up'].setdefault(begin, []) -%}
        {%- do known.extend(names | reject('in', known) | list) -%}
      {%- endfor -%}
    {%- endif -%}
  {%- endfor -%}
  {{- return(plan) -}}
{%- endmacro -%}

{%- macro occurrences(keys, of) -%}
  over (partition by {{ (keys + [of]) | join(', ') }} order by moment)
{%- endmacro -%}

{%- macro is_start(of, window_ms) -%}
  {{ one_where(of, 'previous_' ~ of ~ ' is null or previous_' ~ of ~ ' < ' ~ window_start('moment', window_ms)) }}
{%- endmacro -%}

{%- macro is_end(of, window_ms) -%}
  {{ one_where(of, 'next_' ~ of ~ ' is null or moment < ' ~ window_start('next_' ~ of, window_ms)) }}
{%- endmacro -%}

{%- macro one_where(of, condition) -%}
  case when {{ of }} is not null and ({{ condition }}) then 1 end
{%- endmacro -%}
