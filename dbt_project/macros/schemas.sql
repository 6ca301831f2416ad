{#- A model's schema is the one it names, without the target's in front: tables read as <stage>.<table>. -#}
{%- macro generate_schema_name(custom_schema_name, node) -%}
  {{ custom_schema_name or target.schema }}
{%- endmacro -%}
