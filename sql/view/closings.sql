-- What ended workflows still owe: promises whose children are to be canceled, or that are to be canceled themselves (`itself`), by
-- force or by asking their code. Ticks work them off; `since` is when one last did, or when they came to be owed.
create view closings as
  select c.id, c.since, c.itself, c.force, p.state, p.function
    from closing c left join promise p on p.id = c.id;
