path "sys/policies/acl/credbroker-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "sys/policies/acl/credbroker-anchor" {
  capabilities = ["read"]
}

path "sys/policies/acl/credbroker-broker" {
  capabilities = ["read"]
}

path "sys/policies/acl/credbroker-provisioner" {
  capabilities = ["read"]
}

path "sys/policies/acl/credbroker-reaper" {
  capabilities = ["read"]
}

path "auth/token/roles/credbroker-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}
