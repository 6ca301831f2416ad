{#- The moment from which labels are looked at, ms UTC and exclusive; null where the data's end decides. -#}
{%- macro as_of() -%}
  cast({{ var('as_of') if var('as_of') is not none else 'null' }} as bigint)
{%- endmacro -%}
