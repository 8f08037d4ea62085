"""Who is where, among several instances: leases of instances, and pins of users to them."""
