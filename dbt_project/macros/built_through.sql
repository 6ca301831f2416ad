{#-
  Rows before the moment built_through (ms UTC) stand in the tables as a full build would leave them; only what comes
  later is built. What is needed of the past is condensed first, so that an added day costs what a day costs: the
  windows of the new rows begin in one stretch of time for each length, as long as the new rows are. Within these
  stretches rows are kept by their moments; what lies between two stretches is inside of a window as a whole or
  outside, so that a key's totals there are one row. Of a value's past only its last occurrence decides; of those that do not
  come again in the new rows only the number at each moment. Of what lies before every window only the facts of
  the keys that come again are read, and of the moments to look back at the last few.
-#}

{#- The moment, or none where the whole table is built. -#}
{%- macro built_through() -%}
  {{- return(var('built_through') if var('built_through') is not none and is_incremental() else none) -}}
{%- endmacro -%}

{%- macro is_new_row(column) -%}
  {{ column ~ ' >= ' ~ built_through() if built_through() is not none else 'true' }}
{%- endmacro -%}

{#-
  CTEs up to `recent`: the new rows, and the last occurrence of each value that comes again in them. Only among these
  are neighbours looked for; is_new tells them apart.
-#}
{%- macro recent(keys, plan) -%}
{%- set values = plan['distinct'] | reject('in', keys) | list -%}
{%- set summed, reduced = plan['totals'] | list, plan['facts'] | list -%}
{%- set forever = facts_of_ever(plan) -%}
new_rows {{ adapter.dispatch('kept')() }} (

  select * from timeline where {{ is_new_row('moment') }}

),

last_row as (

  select max(event_time) as last_moment from new_rows

),

past {{ adapter.dispatch('kept')() }} (

  select
    moment,
    {{ (keys + values + summed + reduced) | join(', ') }},
    {{ stretch('moment', plan) }} as stretch
  from timeline cross join last_row
  where moment >= {{ first_stretch(plan) }}
    and moment < {{ built_through() }}
    and {{ is_asked_for(keys) }}

),
{% if forever %}
oldest as (

  select
    {{ keys | join(', ') }}
    {%- for name in forever %},
    {{ plan['facts'][name][0] }}({{ name }}) as {{ name }}
    {%- endfor %}
  from timeline
  where moment < {{ first_stretch(plan) }}
    and {{ is_asked_for(keys) }}
  group by {{ keys | join(', ') }}

),
{% endif %}
{% for of in plan['distinct'] %}
last_{{ of }} as (

  select
    {{ keys | join(', ') }},
    {{ of }},
    {{ stretch('max(moment)', plan) }} as stretch,
    ({{ (keys + [of]) | join(', ') }}) in (
      select ({{ (keys + [of]) | join(', ') }}) from new_rows where {{ of }} is not null
    ) as comes_again
  from past cross join last_row
  where {{ of }} is not null
  group by {{ (keys + [of]) | join(', ') }}, last_moment

),
{% endfor %}
recent as (

  select
    true as is_new, transaction_id, event_time, moment, place, {{ (keys + values + summed + reduced) | join(', ') }}
  from new_rows
  {%- for of in plan['distinct'] %}

  union all

  select false, null, null, stretch, null, {{ keys | join(', ') }}
    {%- for value in values %}, {{ value if value == of else 'null' }}{% endfor %}
    {%- for _ in summed + reduced %}, null{% endfor %}
  from last_{{ of }}
  where comes_again
  {%- endfor %}

),
{%- endmacro -%}

{#- CTEs that turn `neighbours` of `recent` into `condensed`: the new rows, and one row a key and moment of the past. -#}
{%- macro condensed(keys, plan) -%}
{%- set summed, reduced = plan['totals'] | list, plan['facts'] | list -%}
{%- set forever = facts_of_ever(plan) -%}
past_parts as (

  select stretch as moment, {{ keys | join(', ') }}
    {%- for name in summed %}, sum({{ name }}) as {{ name }}{% endfor %}
    {%- for name in reduced %}, {{ plan['facts'][name][0] }}({{ name }}) as {{ name }}{% endfor %}
    {%- for name in plan['presence'] %}, 0 as {{ name }}{% endfor %}
  from past
  group by stretch, {{ keys | join(', ') }}
  {%- if forever %}

  union all

  select {{ first_stretch(plan) }} - 1, {{ keys | join(', ') }}
    {%- for _ in summed %}, null{% endfor %}
    {%- for name in reduced %}, {{ name if name in forever else 'null' }}{% endfor %}
    {%- for _ in plan['presence'] %}, 0{% endfor %}
  from oldest
  {%- endif %}
  {%- if plan['distinct'] %}

  union all

  select moment, {{ keys | join(', ') }}
    {%- for _ in summed + reduced %}, null{% endfor %}
    {%- for expression in plan['presence'].values() %}, {{ expression }}{% endfor %}
  from neighbours
  where not is_new
  {%- endif %}
  {%- for of in plan['distinct'] %}

  union all

  select stretch, {{ keys | join(', ') }}
    {%- for _ in summed + reduced %}, null{% endfor %}
    {%- for name in plan['presence'] %}, {{ 'count(*)' if name in plan['presence_of'][of] else '0' }}{% endfor %}
  from last_{{ of }}
  where not comes_again
  group by stretch, {{ keys | join(', ') }}
  {%- endfor %}

),

condensed as (

  select transaction_id, event_time, moment, place, {{ (keys + summed + reduced) | join(', ') }}
    {%- for name, expression in plan['presence'].items() %}, {{ expression }} as {{ name }}{% endfor %}
  from neighbours
  where is_new

  union all

  select null, null, moment, null, {{ keys | join(', ') }}
    {%- for name in summed %}, sum({{ name }}){% endfor %}
    {%- for name in reduced %}, {{ plan['facts'][name][0] }}({{ name }}){% endfor %}
    {%- for name in plan['presence'] %}, sum({{ name }}){% endfor %}
  from past_parts
  group by moment, {{ keys | join(', ') }}

),
{%- endmacro -%}

{#- Whether a row's key is that of a new transaction. -#}
{%- macro is_asked_for(keys, relation='') -%}
  ({% for key in keys %}{{ relation ~ key }}{{ ', ' if not loop.last }}{% endfor %}) in (select ({{ keys | join(', ') }}) from new_rows where transaction_id is not null)
{%- endmacro -%}

{#- Where the longest window of a new row begins at the earliest: what lies before it cancels out of every total. -#}
{%- macro first_stretch(plan) -%}
  {%- set windows = plan['looked_up'] | sort -%}
  {{- return(window_start(built_through(), windows | last) if windows else built_through()) -}}
{%- endmacro -%}

{#- The facts that look at a key's whole past, and not at a window of it. -#}
{%- macro facts_of_ever(plan) -%}
  {%- set found = [] -%}
  {%- for name, of in plan['facts'].items() if not of[2] -%}
    {%- do found.append(name) -%}
  {%- endfor -%}
  {{- return(found) -}}
{%- endmacro -%}

{#-
  The moment that stands for a row's: its own within a stretch, else the end of the stretch before it. It is on the
  same side of every window's beginning as the row's own.
-#}
{%- macro stretch(moment, plan) -%}
  {%- set windows = plan['looked_up'] | sort -%}
  {%- set begin, end = {}, {} -%}
  {%- for window_ms in windows -%}
    {%- do begin.update({window_ms: window_start(built_through(), window_ms)}) -%}
    {%- do end.update({window_ms: window_start('last_moment', window_ms)}) -%}
  {%- endfor -%}
  case
    {%- for window_ms in windows %}
    when {{ moment }} >= {{ begin[window_ms] }} and {{ moment }} < {{ end[window_ms] }} then {{ moment }}
    {%- endfor %}
    {%- for window_ms in windows %}
    when {{ moment }} >= {{ end[window_ms] }} then {{ end[window_ms] }}
    {%- endfor %}
    when true then {{ first_stretch(plan) }} - 1
  end
{%- endmacro -%}

{#- Of a CTE: whether each that reads it computes it again, of the few columns and rows that it needs, or once for all. -#}
{%- macro default__read_anew() -%}
  as
{%- endmacro -%}

{%- macro duckdb__read_anew() -%}
  as not materialized
{%- endmacro -%}

{%- macro default__kept() -%}
  as
{%- endmacro -%}

{%- macro duckdb__kept() -%}
  as materialized
{%- endmacro -%}

{#- One transaction: what was built of these moments before goes as the new rows come. -#}
{%- macro get_incremental_built_through_sql(arguments) -%}
  {%- set columns = arguments['dest_columns'] | map(attribute='quoted') | join(', ') -%}
  delete from {{ arguments['target_relation'] }} where event_time >= {{ var('built_through') }};
  insert into {{ arguments['target_relation'] }} ({{ columns }}) select {{ columns }} from {{ arguments['temp_relation'] }};
{%- endmacro -%}
