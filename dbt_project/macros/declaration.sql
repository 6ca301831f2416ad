{#- Reads the one declaration (vars in dbt_project.yml): one entry a feature, windows spelt out. -#}

{%- macro declared_features() -%}
  {%- set declared = [] -%}
  {%- for entry in var('features') -%}
    {%- for window in entry.get('windows', [none]) -%}
      {%- do declared.append(dict(
          entry,
          name=entry['name'] ~ ('_' ~ window if window else ''),
          window_ms=var('windows')[window] if window else none,
      )) -%}
    {%- endfor -%}
  {%- endfor -%}
  {%- for extra in var('extras') -%}
    {%- do declared.append(dict(
        name=extra['name'], kind='category' if extra['dtype'] == 'category' else 'field', of=extra['name']
    )) -%}
  {%- endfor -%}
  {{- return(declared) -}}
{%- endmacro -%}

{%- macro features_of_entity(entity) -%}
  {{- return(declared_features() | selectattr('entity', 'defined') | selectattr('entity', 'equalto', entity) | list) -}}
{%- endmacro -%}

{%- macro entity_columns() -%}
  {%- set columns = [] -%}
  {%- for keys in var('entities').values() -%}
    {%- for key in keys if key not in columns -%}
      {%- do columns.append(key) -%}
    {%- endfor -%}
  {%- endfor -%}
  {{- return(columns) -}}
{%- endmacro -%}
